package data

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// This file is the index: the rows that say where blocks lie and what is
// pinned. All its keys begin with "data/"; named datasets live under
// "data/set/".
//
//	data/b/<multihash>        places of a block, one after the other
//	data/f/<file id>          a user's file that was indexed in place
//	data/n/<path>             the file id of a path
//	data/p/<pack id>          committed length of a pack
//	data/pin/<n><cid><owner>  pin, n being the length of the CID
//	data/root/<cid>           what is known of a root (see rootInfo)
//	data/next                 next file id
const (
	keyBlock = "data/b/"
	keyFile  = "data/f/"
	keyPath  = "data/n/"
	keyPack  = "data/p/"
	keyPin   = "data/pin/"
	keyRoot  = "data/root/"
	keyNext  = "data/next"
	keySync  = "data/sync"
)

// The kinds of place.
const (
	atPack    = 'p' // a run of a pack
	atInline  = 'i' // in the row itself
	atFile    = 'f' // a run of a user's file is the block
	atWrapped = 'w' // a run of a user's file is the payload of a dag-pb leaf
)

// maxPlaces bounds the places remembered for one block.
const maxPlaces = 8

// place is where a block lies. Length is that of the run, without a wrapping.
type place struct {
	kind   byte
	id     uint64 // of the pack or file
	offset int64
	length int64
	sum    [32]byte // atWrapped: sha2-256 of the payload
	data   []byte   // atInline
}

// size returns the length of the whole block.
func (p place) size() int64 {
	if p.kind == atWrapped {
		head, tail := wrapLeaf(int(p.length))
		return int64(len(head)) + p.length + int64(len(tail))
	}
	return p.length
}

func (p place) append(b []byte) []byte {
	b = append(b, p.kind)
	if p.kind == atInline {
		b = binary.AppendUvarint(b, uint64(len(p.data)))
		return append(b, p.data...)
	}
	b = binary.AppendUvarint(b, p.id)
	b = binary.AppendUvarint(b, uint64(p.offset))
	b = binary.AppendUvarint(b, uint64(p.length))
	if p.kind == atWrapped {
		b = append(b, p.sum[:]...)
	}
	return b
}

// encodePlaces makes a row of places, empty when there is none.
func encodePlaces(ps []place) []byte {
	var b []byte
	for _, p := range ps {
		b = p.append(b)
	}
	return b
}

var errIndex = perigee.E("data.index", perigee.Corrupt, "a row of the block index is damaged")

// decodePlaces reads a row of places. Data aliases b.
func decodePlaces(b []byte) ([]place, error) {
	var out []place
	for len(b) > 0 {
		p := place{kind: b[0]}
		b = b[1:]
		var v [3]uint64
		count := 3
		if p.kind == atInline {
			count = 1
		}
		for i := range count {
			x, n := binary.Uvarint(b)
			if n <= 0 || x > maxSize {
				return nil, errIndex
			}
			v[i], b = x, b[n:]
		}
		switch p.kind {
		case atInline:
			if v[0] > uint64(len(b)) {
				return nil, errIndex
			}
			p.length, p.data, b = int64(v[0]), b[:v[0]], b[v[0]:]
		case atPack, atFile, atWrapped:
			p.id, p.offset, p.length = v[0], int64(v[1]), int64(v[2])
			if p.length > MaxBlock {
				return nil, errIndex
			}
			if p.kind == atWrapped {
				if len(b) < 32 {
					return nil, errIndex
				}
				p.sum, b = [32]byte(b), b[32:]
			}
		default:
			return nil, errIndex
		}
		if len(out) >= 2*maxPlaces {
			return nil, errIndex
		}
		out = append(out, p)
	}
	return out, nil
}

// mergePlace adds p to ps unless it is there; the place of a moved block in the
// same file or pack replaces the old one. The order is that of preference:
// copies before files that may change.
func mergePlace(ps []place, p place) []place {
	for i, q := range ps {
		if q.kind == p.kind && q.id == p.id && (q.offset == p.offset || p.kind == atPack) {
			ps[i] = p
			return ps
		}
	}
	if p.kind == atPack || p.kind == atInline {
		return append([]place{p}, ps...)
	}
	if len(ps) >= maxPlaces {
		return ps
	}
	return append(ps, p)
}

// hasCopy reports whether one of the places is this package's own.
func hasCopy(ps []place) bool {
	for _, p := range ps {
		if p.kind == atPack || p.kind == atInline {
			return true
		}
	}
	return false
}

func blockKey(hash string) []byte { return append([]byte(keyBlock), hash...) }

func idKey(prefix string, id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefix), id)
}

func pinKey(c cid.Cid, owner string) []byte {
	b := c.Bytes()
	k := append([]byte(keyPin), byte(len(b)))
	return append(append(k, b...), owner...)
}

// parsePinKey reverses pinKey.
func parsePinKey(k []byte) (cid.Cid, string, error) {
	k = k[min(len(keyPin), len(k)):]
	if len(k) < 1 || len(k) < 1+int(k[0]) {
		return cid.Undef, "", errIndex
	}
	c, err := cid.Cast(append([]byte(nil), k[1:1+int(k[0])]...))
	return c, string(k[1+int(k[0]):]), err
}

func rootKey(c cid.Cid) []byte { return append([]byte(keyRoot), c.Bytes()...) }

// places returns where a block lies, nil when it is not here.
func (s *Store) places(hash string) ([]place, error) {
	b, err := s.db.Get(blockKey(hash))
	if errors.Is(err, perigee.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodePlaces(b)
}

// fileRow is a user's file that was indexed in place, as it was then.
type fileRow struct {
	Path  string `cbor:"path"`
	Size  int64  `cbor:"size"`
	MTime int64  `cbor:"mtime"` // Unix nanoseconds
	CTime int64  `cbor:"ctime"`
	Inode uint64 `cbor:"inode"`
	Dev   uint64 `cbor:"dev"`
}

// same reports whether the file is unchanged as far as its status tells.
func (f fileRow) same(g fileRow) bool {
	return f.Size == g.Size && f.MTime == g.MTime && f.CTime == g.CTime && f.Inode == g.Inode && f.Dev == g.Dev
}

// statRow makes the row of a file from its status.
func statRow(path string, fi fs.FileInfo) fileRow {
	f := fileRow{Path: path, Size: fi.Size(), MTime: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		f.CTime, f.Inode, f.Dev = ctimeOf(st), st.Ino, uint64(st.Dev)
	}
	return f
}

// fileByID returns the row of an indexed file.
func (s *Store) fileByID(id uint64) (fileRow, error) {
	var f fileRow
	b, err := s.db.Get(idKey(keyFile, id))
	if err != nil {
		return f, err
	}
	return f, perigee.Decode(b, &f)
}

// fileID returns the id of an indexed path, or a new one.
func (s *Store) fileID(path string) (id uint64, known bool, err error) {
	b, err := s.db.Get(append([]byte(keyPath), path...))
	switch {
	case err == nil && len(b) == 8:
		return binary.BigEndian.Uint64(b), true, nil
	case err == nil:
		return 0, false, errIndex
	case !errors.Is(err, perigee.NotFound):
		return 0, false, err
	}
	return s.nextFile.Add(1), false, nil
}

// update reads, changes and writes the places of blocks as one step. The
// change is durable with the next durable write. change gets nil for a block
// that is not here and returns nil to forget it.
func (s *Store) update(hashes []string, change func(i int, ps []place) []place, more *db.Batch) error {
	s.rowMu.Lock()
	defer s.rowMu.Unlock()
	for i, h := range hashes {
		old, err := s.places(h)
		if err != nil {
			return err
		}
		if ps := change(i, old); len(ps) > 0 {
			more.Put(blockKey(h), encodePlaces(ps))
		} else if old != nil {
			more.Delete(blockKey(h))
		}
	}
	return s.db.WriteLazy(more)
}
