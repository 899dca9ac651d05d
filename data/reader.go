package data

import (
	"context"

	"io"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
)

// readAhead is how many bytes a reader fetches at once when it meets some that
// are not here.
const readAhead = 8 << 20

// fileReader reads a file, fetching what is not here. It is for one goroutine.
type fileReader struct {
	s    *Store
	ctx  context.Context
	root cid.Cid
	size int64
	pos  int64

	at    int64 // where the buffered leaf begins
	leaf  []byte
	nodes map[cid.Cid][]byte // inner nodes read lately
	ended bool

	aheadFrom, aheadTo int64 // what was seen to be here
}

// OpenFile opens the file c for reading and seeking. ctx governs the whole use:
// bytes that are not on this node are fetched as they are read. Every byte is
// verified before it is returned; errors of Read are those of GetBlock.
func (s *Store) OpenFile(ctx context.Context, c perigee.CID) (io.ReadSeekCloser, error) {
	if err := defined("data.OpenFile", c); err != nil {
		return nil, err
	}
	r := &fileReader{s: s, ctx: ctx, root: c.Cid(), nodes: map[cid.Cid][]byte{}}
	var err error
	if r.size, err = s.fileSize(c.Cid(), r.get); err != nil {
		return nil, err
	}
	return r, nil
}

// get returns a block and keeps a few inner nodes.
func (r *fileReader) get(c cid.Cid) ([]byte, error) {
	if b, ok := r.nodes[c]; ok {
		return b, nil
	}
	b, err := r.s.block(r.ctx, c, nil)
	if err == nil && isInner(c) && len(b) < 128<<10 {
		if len(r.nodes) >= 32 {
			clear(r.nodes)
		}
		r.nodes[c] = b
	}
	return b, err
}

func (r *fileReader) Read(p []byte) (int, error) {
	if r.ended {
		return 0, perigee.E("data.Read", perigee.Invalid, "the file is closed")
	}
	if r.pos >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.pos < r.at || r.pos >= r.at+int64(len(r.leaf)) {
		if err := r.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.leaf[r.pos-r.at:])
	r.pos += int64(n)
	return n, nil
}

// load reads the leaf at pos.
func (r *fileReader) load() error {
	var found *run
	find := func() error {
		found = nil
		err := fileRuns(r.ctx, r.root, -1, r.pos, r.pos+1, r.get, func(x run) error {
			if x.length < 0 {
				x.length = r.size
			}
			found = &x
			return errDone
		})
		if err == errDone {
			err = nil
		}
		return err
	}
	if err := r.fetchAhead(); err != nil {
		return err
	}
	if err := find(); err != nil {
		return err
	}
	if found == nil {
		return perigee.E("data.Read", perigee.Corrupt, "nothing holds byte %d of %s", r.pos, r.root)
	}
	b, err := found.payload(r.get)
	if err != nil {
		return err
	}
	r.at, r.leaf = found.offset, b
	return nil
}

// fetchAhead brings what follows pos here, many leaves at a time, unless it is
// here or was brought before. It comes before the walk to the leaf: where leaves
// are dag-pb nodes, the walk would fetch them one by one.
func (r *fileReader) fetchAhead() error {
	if r.s.net == nil || r.pos >= r.aheadFrom && r.pos < r.aheadTo {
		return nil
	}
	in := perigee.PartInput{CID: perigee.NewCID(r.root), Size: r.size, Offset: r.pos, Length: min(readAhead, r.size-r.pos)}
	here, err := r.s.LocalBytes(r.ctx, in)
	if err == nil && here < in.Length {
		_, err = r.s.Fetch(r.ctx, in, nil, nil)
	}
	if err != nil {
		return err
	}
	r.aheadFrom, r.aheadTo = r.pos, r.pos+in.Length
	return nil
}

func (r *fileReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	default:
		return 0, perigee.E("data.Seek", perigee.Invalid, "whence %d", whence)
	}
	if offset < 0 {
		return 0, perigee.E("data.Seek", perigee.Invalid, "a seek to before the beginning")
	}
	r.pos = offset
	return offset, nil
}

func (r *fileReader) Close() error {
	r.ended, r.leaf = true, nil
	return nil
}
