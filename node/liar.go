//go:build perigee_liar

package node

import (
	"bytes"
	"io"
	"os"

	"github.com/perigee-network/perigee/data"
)

// alter makes a provider that lies: when PERIGEE_LIE is set, it appends that
// text to the standard output of every execution. Only builds with the tag
// perigee_liar, made by tests, contain it.
var alter = func(e data.Entry) data.Entry {
	lie := os.Getenv("PERIGEE_LIE")
	if lie == "" || e.Path != "stdout" {
		return e
	}
	open := e.Open
	e.Size += int64(len(lie))
	e.Open = func() (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(r, bytes.NewReader([]byte(lie))), r}, nil
	}
	return e
}

// tamper makes a holder that sends corrupt blocks: when PERIGEE_CORRUPT is set,
// it flips a bit in the middle of every block of some size.
var tamper = func(block []byte) []byte {
	if os.Getenv("PERIGEE_CORRUPT") == "" || len(block) < 1024 {
		return block
	}
	b := bytes.Clone(block)
	b[len(b)/2] ^= 1
	return b
}
