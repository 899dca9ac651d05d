package client

import (
	"archive/tar"
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// escapes are archives that try to write outside of where they are unpacked.
func escapes(t *testing.T) map[string][]byte {
	t.Helper()
	pack := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Mode = 0o644
			require.NoError(t, w.WriteHeader(&h))
		}
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	link := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
	}
	return map[string][]byte{
		"climbs":            pack(file("../out")),
		"absolute":          pack(file("/tmp/perigee-escape")),
		"through a symlink": pack(link("l", ".."), file("l/out")),
		"absolute symlink":  pack(link("l", "/tmp"), file("l/perigee-escape")),
		"two symlinks":      pack(link("a", "b"), link("b", ".."), file("a/out")),
	}
}
