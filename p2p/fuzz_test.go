package p2p

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/perigee-network/perigee"
)

// FuzzReadFrame reads a stream of messages: no input may panic, hold more
// memory than it sent, or give a body that does not encode back to its bytes.
func FuzzReadFrame(f *testing.F) {
	body, _ := perigee.Encode(echo{"hello"})
	f.Add(append([]byte{byte(len(body))}, body...))
	f.Add([]byte("\xff\xff\xff\xff\x0f"))
	f.Add([]byte("\x80\x80\x80\x02x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		var again []byte
		for {
			body, err := readFrame(r)
			if err != nil {
				if err != io.EOF && !errors.Is(err, perigee.Corrupt) {
					t.Fatalf("kind %s: %v", perigee.KindOf(err), err)
				}
				if err == io.EOF && !bytes.Equal(again, data) {
					t.Fatal("the frames read are not the bytes sent")
				}
				return
			}
			again = append(binary.AppendUvarint(again, uint64(len(body))), body...)
			var m echo
			if perigee.Decode(body, &m) == nil {
				if enc, err := perigee.Encode(m); err != nil || !bytes.Equal(enc, body) {
					t.Fatal("a message has two forms")
				}
			}
		}
	})
}

func FuzzParsePSK(f *testing.F) {
	f.Add(FormatPSK(make([]byte, 32)))
	f.Add([]byte("/key/swarm/psk/1.0.0/\n/base64/\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add([]byte("/key/swarm/psk/1.0.0/\n/bin/\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		psk, err := ParsePSK(data)
		if err != nil {
			if !errors.Is(err, perigee.Invalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParsePSK(FormatPSK(psk))
		if err != nil || !bytes.Equal(again, psk) {
			t.Fatal(hex.EncodeToString(psk), err)
		}
	})
}

func FuzzParsePeer(f *testing.F) {
	id := string(testKey(f).Peer())
	f.Add("/ip4/127.0.0.1/tcp/4001/p2p/" + id)
	f.Add("/dns4/example.com/tcp/4001/p2p/" + id + "/p2p-circuit/p2p/" + id)
	f.Add("/p2p/" + id)
	f.Add("127.0.0.1:4001")
	f.Fuzz(func(t *testing.T, s string) {
		info, err := parsePeer(s)
		if err != nil {
			if !errors.Is(err, perigee.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if info.ID == "" || len(info.Addrs) == 0 {
			t.Fatalf("%q: half an address", s)
		}
	})
}

func TestParsePSKErrors(t *testing.T) {
	digits := strings.Repeat("0f", 32)
	for name, file := range map[string]string{
		"three lines":  "",
		"not a pre":    "/key/swarm/psk/2.0.0/\n/base16/\n" + digits,
		"encoding":     "/key/swarm/psk/1.0.0/\n/bin/\n" + digits,
		"not 32 bytes": "/key/swarm/psk/1.0.0/\n/base16/\n" + digits[2:],
		"at most 4096": strings.Repeat("x", 5000),
	} {
		_, err := ParsePSK([]byte(file))
		if !errors.Is(err, perigee.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), digits[:20]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	for _, file := range []string{"\r\n/key/swarm/psk/1.0.0/ \r\n/base16/\r\n" + digits + "\r\n"} {
		if _, err := ParsePSK([]byte(file)); err != nil {
			t.Error(err)
		}
	}
}
