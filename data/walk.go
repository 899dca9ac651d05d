package data

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
)

// maxDepth bounds the nesting of a DAG: directories, shards and file levels.
const maxDepth = 256

// getter returns a verified metadata block.
type getter func(c cid.Cid) ([]byte, error)

// nodeOf returns the links and the meaning of a block, given its CID: a raw or
// unknown block is a leaf with no links.
func nodeOf(c cid.Cid, get getter) (ufsNode, error) {
	b, err := get(c)
	if err != nil {
		return ufsNode{}, err
	}
	return parseUnixFS(b)
}

// isInner reports whether a CID may link to others. Only dag-pb is followed: a
// manifest or a receipt names data, it does not contain it.
func isInner(c cid.Cid) bool { return c.Prefix().Codec == perigee.CodecDagPB }

// below is what lies below a CID.
type below struct {
	size  int64
	files int64
}

// walker visits each block below a root once, parents first. Blocks that are
// missing are reported and not entered.
type walker struct {
	get  getter
	have func(hash string) (int64, bool, error) // size and presence of a leaf
	// visit is called for each block: n is nil for leaves. It may be nil.
	visit func(c cid.Cid, n *ufsNode, size int64) error
	// missing is called for each block that is not here; parent tells what
	// linked to it (nil for a root). It may be nil.
	missing func(c cid.Cid, parent *ufsNode, claimed uint64) error

	seen   map[string]below
	blocks int64
	lost   int64
}

// walk visits everything below c and returns sizes, counting shared parts as
// often as they occur.
func (w *walker) walk(ctx context.Context, c cid.Cid) (below, error) {
	if w.seen == nil {
		w.seen = map[string]below{}
	}
	return w.enter(ctx, c, nil, 0, 0)
}

func (w *walker) enter(ctx context.Context, c cid.Cid, parent *ufsNode, claimed uint64, depth int) (below, error) {
	hash := string(c.Hash())
	if b, ok := w.seen[hash]; ok {
		return b, nil
	}
	if depth > maxDepth {
		return below{}, perigee.E("data.walk", perigee.Invalid, "a tree nested deeper than %d levels at %s", maxDepth, c)
	}
	if err := ctx.Err(); err != nil {
		return below{}, err
	}
	if !isInner(c) {
		return w.leaf(c, parent, claimed)
	}
	n, err := nodeOf(c, w.get)
	if errors.Is(err, perigee.NotFound) {
		return below{}, w.miss(c, parent, claimed)
	}
	if err != nil {
		return below{}, err
	}
	w.seen[hash] = below{} // a DAG has no cycles, but hostile time is bounded
	w.blocks++
	if w.visit != nil {
		if err := w.visit(c, &n, 0); err != nil {
			return below{}, err
		}
	}
	var sum below
	for i, l := range n.Links {
		claim := l.Size
		if n.Type == ufsFile && i < len(n.BlockSizes) {
			claim = n.BlockSizes[i]
		}
		b, err := w.enter(ctx, l.CID, &n, claim, depth+1)
		if err != nil {
			return below{}, err
		}
		sum.size = min(sum.size+b.size, maxSize)
		sum.files = min(sum.files+b.files, maxSize)
	}
	switch n.Type {
	case ufsFile, ufsRaw:
		sum = below{int64(n.FileSize), 1}
	case ufsSymlink:
		sum = below{0, 1}
	}
	w.seen[hash] = sum
	return sum, nil
}

func (w *walker) leaf(c cid.Cid, parent *ufsNode, claimed uint64) (below, error) {
	hash := string(c.Hash())
	size, ok := int64(0), false
	if d, inCID := known(c); inCID {
		size, ok = int64(len(d)), true
	} else {
		var err error
		if size, ok, err = w.have(hash); err != nil {
			return below{}, err
		}
	}
	if !ok {
		b := below{int64(min(claimed, maxSize)), 1}
		w.seen[hash] = b
		return b, w.miss(c, parent, claimed)
	}
	w.seen[hash] = below{size, 1}
	w.blocks++
	if w.visit != nil {
		return below{size, 1}, w.visit(c, nil, size)
	}
	return below{size, 1}, nil
}

func (w *walker) miss(c cid.Cid, parent *ufsNode, claimed uint64) error {
	w.lost++
	if w.missing != nil {
		return w.missing(c, parent, claimed)
	}
	return nil
}

// haveLocal is a walker's have over the store.
func (s *Store) haveLocal(hash string) (int64, bool, error) {
	ps, err := s.places(hash)
	if err != nil || len(ps) == 0 {
		return 0, false, err
	}
	return ps[0].size(), true, nil
}

// localOrMissing is s.local, with a block lost to a change counted as missing.
func (s *Store) localOrMissing(c cid.Cid) ([]byte, error) {
	b, err := s.local(c)
	if errors.Is(err, perigee.Corrupt) {
		return nil, perigee.E("data.Get", perigee.NotFound, err)
	}
	return b, err
}

// walker returns a walker over the store and the session, which protects all it
// finds.
func (w *session) walker() walker {
	return walker{
		get: func(c cid.Cid) ([]byte, error) {
			w.touch(string(c.Hash()))
			b, err := w.block(c)
			if errors.Is(err, perigee.Corrupt) {
				err = perigee.E("data.Get", perigee.NotFound, err)
			}
			return b, err
		},
		have: func(hash string) (int64, bool, error) {
			w.touch(hash)
			w.mu.Lock()
			p, ok := w.pending(hash)
			w.mu.Unlock()
			if ok {
				return p.size(), true, nil
			}
			return w.s.haveLocal(hash)
		},
	}
}
