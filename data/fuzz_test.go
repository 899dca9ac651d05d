package data

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// fuzzStore is a store in memory for a fuzz target.
func fuzzStore(f *testing.F) *Store {
	s, err := Open(context.Background(), Config{Dir: f.TempDir(), DB: db.Memory()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	return s
}

func seedCAR(f *testing.F, s *Store) []byte {
	a, err := s.AddEntries(context.Background(), entriesOf(fileEntry("a/b", "content"), fileEntry("c", "more")), AddOptions{Chunker: "size-3"})
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.ExportCAR(context.Background(), a.CID, &b); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}

// FuzzCAR reads hostile CARs: whatever is imported must be readable.
func FuzzCAR(f *testing.F) {
	s := fuzzStore(f)
	f.Add(seedCAR(f, s))
	f.Add(append(append([]byte{0x0a}, carV2Pragma...), make([]byte, 60)...))
	f.Add([]byte{0x0a, 0xa1, 0x67})
	f.Fuzz(func(t *testing.T, b []byte) {
		roots, err := s.ImportCAR(context.Background(), bytes.NewReader(b), "")
		if err != nil {
			if perigee.KindOf(err) == perigee.Internal {
				t.Fatal(err)
			}
			return
		}
		for _, c := range roots {
			if v, err := s.Verify(context.Background(), c); err != nil || !v.OK() {
				t.Fatalf("%v %+v", err, v)
			}
		}
	})
}

// FuzzRequest reads hostile requests.
func FuzzRequest(f *testing.F) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	c := perigee.SumCID(perigee.CodecRaw, nil)
	if err := writeMessage(w, request{opTree, []perigee.CID{c, c}}); err != nil {
		f.Fatal(err)
	}
	w.Flush()
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := readRequest(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && (len(q.Want) == 0 || len(q.Want) > maxWant) {
			t.Fatal("out of bounds")
		}
	})
}

// FuzzAnswer reads hostile answers as a fetch does.
func FuzzAnswer(f *testing.F) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	data := []byte("a block")
	c := perigee.SumCID(perigee.CodecRaw, data)
	if err := errors.Join(writeFrame(w, c.Cid(), data), writeUvarint(w, 0), writeMessage(w, trailer{Missing: []uint32{1}})); err != nil {
		f.Fatal(err)
	}
	w.Flush()
	f.Add(b.Bytes())
	f.Add([]byte{0x80, 0x80, 0x80, 0x01})
	buf := make([]byte, maxFrame)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			c, data, err := readFrame(r, buf, nil)
			if err != nil {
				return
			}
			if !c.Defined() {
				break
			}
			_ = verify(c, data)
		}
		var end trailer
		_ = readMessage(r, &end)
	})
}

// FuzzUnixFS reads hostile metadata in every way it is read. What encodes as it
// was decoded must mean the same.
func FuzzUnixFS(f *testing.F) {
	s := fuzzStore(f)
	for _, p := range profiles {
		keep := func(_ cid.Cid, b []byte) error { f.Add(b); return nil }
		leaf := p.leafRef(p.leafDigest([]byte("x")), 1)
		many := []dirEntry{}
		for i := range 40 {
			many = append(many, dirEntry{string(rune('a' + i)), leaf})
		}
		_, _ = p.file([]ref{leaf, leaf}, keep)
		_, _ = p.symlink("target", keep)
		_, _ = p.dir(many, keep)
		var links []link
		for _, e := range many {
			links = append(links, link{e.name, e.CID, e.Cum})
		}
		_, _, _ = p.shard(links, 0, keep)
	}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNode(b); err == nil {
			again, err := decodeNode(encodeNode(n))
			if err != nil || len(again.Links) != len(n.Links) || !bytes.Equal(again.Data, n.Data) {
				t.Fatalf("%v", err)
			}
		}
		c := perigee.SumCID(perigee.CodecDagPB, b)
		get := func(x cid.Cid) ([]byte, error) {
			if x == c.Cid() {
				return b, nil
			}
			return nil, perigee.E("test", perigee.NotFound, "absent")
		}
		n, err := nodeOf(c.Cid(), get)
		if err != nil {
			return
		}
		_, _ = dirLinks(ctx, n, get)
		_, _ = s.entry(link{CID: c.Cid()}, get)
		if size, err := s.fileSize(c.Cid(), get); err == nil {
			_ = fileRuns(ctx, c.Cid(), -1, 0, size, get, func(r run) error {
				if r.block != nil {
					_ = r.block[r.skip : r.skip+int(r.length)]
				}
				return nil
			})
			_, _ = s.boundary(ctx, c.Cid(), size, size/2, get)
		}
		w := walker{get: get, have: func(string) (int64, bool, error) { return 1, true, nil }}
		_, _ = w.walk(ctx, c.Cid())
	})
}

// FuzzIndex reads damaged rows of the index.
func FuzzIndex(f *testing.F) {
	f.Add(encodePlaces([]place{{kind: atPack, id: 1, offset: 2, length: 3}, {kind: atInline, length: 1, data: []byte("x")},
		{kind: atWrapped, id: 9, offset: 1 << 40, length: MaxBlock}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := decodePlaces(b)
		if err == nil {
			if again, err := decodePlaces(encodePlaces(ps)); err != nil || len(again) != len(ps) {
				t.Fatal(err)
			}
		}
		_, _, _ = parsePinKey(append([]byte(keyPin), b...))
	})
}

// FuzzChunker reads profile and chunker names.
func FuzzChunker(f *testing.F) {
	f.Add("unixfs-v1-2025", "size-1048576")
	f.Add("", "rabin-1-2-3")
	f.Fuzz(func(t *testing.T, name, chunker string) {
		p, err := parseProfile(name, chunker)
		if err == nil && (p.chunk < 1 || p.chunk > maxChunk) {
			t.Fatalf("%q gives chunks of %d", chunker, p.chunk)
		}
		if err != nil && !errors.Is(err, perigee.Invalid) {
			t.Fatal(err)
		}
	})
}
