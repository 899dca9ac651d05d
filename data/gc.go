package data

import (
	"context"
	"encoding/binary"
	"errors"
	"os"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Garbage collection and everything that adds, pins or holds run at the same
// time. The order that makes this safe: a session protects a block (touch) before
// it looks whether the block is here, and the collection removes rows of the
// index only while gcMu keeps touches out, after looking at what is protected.
// So a session either protects a block in time or sees that it is gone and
// writes it again. What a session protected stays protected until the end of the
// collection even if the session ends, and its pin is written before it ends.

// GCReport says what a collection removed.
type GCReport struct {
	Blocks  int64 `json:"blocks"`  // blocks forgotten
	Bytes   int64 `json:"bytes"`   // disk space freed
	Files   int64 `json:"files"`   // users' files no longer indexed
	Packs   int64 `json:"packs"`   // packs removed
	Rewrote int64 `json:"rewrote"` // of which were rewritten to keep their live blocks
	Kept    int64 `json:"kept"`    // blocks kept
}

// sweepBatch is how many rows are removed under one lock.
const sweepBatch = 512

// collection is one garbage collection.
type collection struct {
	s      *Store
	live   map[string]struct{} // reached from a pin
	held   map[string]struct{} // reached from a hold: its pack stays where it is
	report GCReport
	used   map[uint64]int64 // live bytes of packs
	pinned map[uint64]bool  // packs with held blocks
	files  map[uint64]bool  // users' files with live blocks
}

// GC removes all blocks that no pin, hold, add or fetch reaches, and rewrites
// packs of which less than half is live. Files indexed in place are only
// forgotten, never touched. One collection runs at a time; others wait.
func (s *Store) GC(ctx context.Context) (GCReport, error) {
	s.gcRun.Lock()
	defer s.gcRun.Unlock()
	g := &collection{s: s, live: map[string]struct{}{}, held: map[string]struct{}{},
		used: map[uint64]int64{}, pinned: map[uint64]bool{}, files: map[uint64]bool{}}
	s.gcMu.Lock()
	s.gcActive, s.gcKeep, s.gcClaims = true, map[string]struct{}{}, map[uint64]struct{}{}
	var holds []cid.Cid
	for c := range s.holds {
		holds = append(holds, c)
	}
	s.gcMu.Unlock()
	defer func() {
		s.gcMu.Lock()
		s.gcActive, s.gcKeep, s.gcClaims = false, nil, nil
		s.gcMu.Unlock()
	}()
	for _, c := range holds {
		if err := g.mark(ctx, c, g.held); err != nil {
			return g.report, err
		}
	}
	if err := g.markPins(ctx); err != nil {
		return g.report, err
	}
	before, err := g.packSizes()
	if err != nil {
		return g.report, err
	}
	if err := g.sweep(ctx); err != nil {
		return g.report, err
	}
	if err := g.forgetFiles(ctx); err != nil {
		return g.report, err
	}
	return g.report, g.shrink(ctx, before)
}

func (g *collection) markPins(ctx context.Context) error {
	var roots []cid.Cid
	err := g.s.db.Scan([]byte(keyPin), nil, func(k, _ []byte) error {
		c, _, err := parsePinKey(k)
		roots = append(roots, c)
		return err
	})
	for _, c := range roots {
		if err == nil {
			err = g.mark(ctx, c, g.live)
		}
	}
	return err
}

// mark adds everything below a root to set. A block that cannot be read or
// understood is kept, without what it may link to.
func (g *collection) mark(ctx context.Context, root cid.Cid, set map[string]struct{}) error {
	stack := []cid.Cid{root}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		hash := string(c.Hash())
		if _, ok := set[hash]; ok {
			continue
		}
		set[hash] = struct{}{}
		if !isInner(c) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return ctxError("data.GC", ctx)
		}
		b, err := g.s.local(c)
		if errors.Is(err, perigee.NotFound) || errors.Is(err, perigee.Corrupt) {
			continue
		}
		if err != nil {
			return err
		}
		n, err := decodeNode(b)
		if err != nil {
			g.s.log.Warn("a kept block is no dag-pb", "cid", c.String(), "cause", err)
			continue
		}
		for _, l := range n.Links {
			stack = append(stack, l.CID)
		}
	}
	return nil
}

// dead is a row that may go.
type dead struct {
	hash   string
	places []place
}

// sweep scans the index and forgets what is not marked.
func (g *collection) sweep(ctx context.Context) error {
	var batch []dead
	err := g.s.db.Scan([]byte(keyBlock), nil, func(k, v []byte) error {
		hash := string(k[len(keyBlock):])
		ps, err := decodePlaces(v)
		if err != nil {
			return err
		}
		_, live := g.live[hash]
		_, held := g.held[hash]
		if live || held {
			g.keep(ps, held)
			return nil
		}
		for i := range ps {
			ps[i].data = nil // of the scan
		}
		if batch = append(batch, dead{hash, ps}); len(batch) < sweepBatch {
			return nil
		}
		err = g.remove(batch)
		batch = batch[:0]
		if err == nil && ctx.Err() != nil {
			err = ctxError("data.GC", ctx)
		}
		return err
	})
	if err == nil {
		err = g.remove(batch)
	}
	return err
}

// keep counts the places of a block that stays.
func (g *collection) keep(ps []place, held bool) {
	g.report.Kept++
	for _, p := range ps {
		switch p.kind {
		case atPack:
			g.used[p.id] += p.length
			if held {
				g.pinned[p.id] = true
			}
		case atFile, atWrapped:
			g.files[p.id] = true
		}
	}
}

// remove forgets blocks unless something protects them by now.
func (g *collection) remove(batch []dead) error {
	s := g.s
	s.gcMu.Lock()
	defer s.gcMu.Unlock()
	var hashes []string
	for _, d := range batch {
		if s.protected(d.hash) {
			g.keep(d.places, true)
			continue
		}
		hashes = append(hashes, d.hash)
		g.report.Blocks++
		for _, p := range d.places {
			if p.kind == atInline {
				g.report.Bytes += p.length
			}
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	return s.update(hashes, func(int, []place) []place { return nil }, &db.Batch{})
}

// protected reports whether a session protects a block. The caller holds gcMu.
func (s *Store) protected(hash string) bool {
	if _, ok := s.gcKeep[hash]; ok {
		return true
	}
	for w := range s.sessions {
		if _, ok := w.touched[hash]; ok {
			return true
		}
	}
	return false
}

// forgetFiles removes the rows of users' files without live blocks.
func (g *collection) forgetFiles(ctx context.Context) error {
	s := g.s
	type row struct {
		id   uint64
		path string
	}
	var gone []row
	err := s.db.Scan([]byte(keyFile), nil, func(k, v []byte) error {
		if len(k) != len(keyFile)+8 {
			return errIndex
		}
		id := binary.BigEndian.Uint64(k[len(keyFile):])
		if g.files[id] {
			return nil
		}
		var f fileRow
		if err := perigee.Decode(v, &f); err != nil {
			return err
		}
		gone = append(gone, row{id, f.Path})
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	s.gcMu.Lock()
	defer s.gcMu.Unlock()
	b := &db.Batch{}
	for _, r := range gone {
		if s.claimed(r.id) {
			continue
		}
		g.report.Files++
		b.Delete(idKey(keyFile, r.id))
		b.Delete(append([]byte(keyPath), r.path...))
	}
	if b.Len() == 0 {
		return nil
	}
	return s.db.WriteLazy(b)
}

// claimed reports whether a session indexes a file, or did since the collection
// began. The caller holds gcMu.
func (s *Store) claimed(id uint64) bool {
	if _, ok := s.gcClaims[id]; ok {
		return true
	}
	for w := range s.sessions {
		for _, claim := range w.claims {
			if claim == id {
				return true
			}
		}
	}
	return false
}

// packSizes returns the committed lengths of all packs.
func (g *collection) packSizes() (map[uint64]int64, error) {
	sizes := map[uint64]int64{}
	err := g.s.db.Scan([]byte(keyPack), nil, func(k, v []byte) error {
		n, l := binary.Uvarint(v)
		if len(k) != len(keyPack)+8 || l <= 0 {
			return errIndex
		}
		sizes[binary.BigEndian.Uint64(k[len(keyPack):])] = int64(n)
		return nil
	})
	return sizes, err
}

// shrink removes packs without live blocks and rewrites those with few. Packs
// that are new or grew since before are left alone: the sweep did not see what
// was put there.
func (g *collection) shrink(ctx context.Context, before map[uint64]int64) error {
	s := g.s
	sizes, err := g.packSizes()
	if err != nil {
		return err
	}
	for id, size := range sizes {
		live := g.used[id]
		if was, ok := before[id]; !ok || was != size || live > size/2 || (live > 0 && g.pinned[id]) {
			continue
		}
		if !s.packs.retire(id, size) {
			continue
		}
		if live > 0 {
			if ok, err := g.rewrite(ctx, id); err != nil {
				return err
			} else if !ok {
				continue
			}
			g.report.Rewrote++
		}
		b := &db.Batch{}
		b.Delete(idKey(keyPack, id))
		if err := s.db.Write(b); err != nil { // makes the removed rows durable too
			return err
		}
		if err := s.packs.drop(id); err != nil && !errors.Is(err, os.ErrNotExist) {
			return perigee.E("data.GC", perigee.Internal, err)
		}
		g.report.Packs++
		g.report.Bytes += size - live
	}
	return nil
}

// rewrite moves what is live in a pack to another. It reports false, and leaves
// the pack, when something came to use it meanwhile: a tree's reader knows where
// its bytes lie.
func (g *collection) rewrite(ctx context.Context, id uint64) (bool, error) {
	s := g.s
	w := s.newSession()
	defer w.end()
	moved := map[string]place{}
	err := s.db.Scan([]byte(keyBlock), nil, func(k, v []byte) error {
		ps, err := decodePlaces(v)
		if err != nil {
			return err
		}
		for _, p := range ps {
			if p.kind == atPack && p.id == id {
				moved[string(k[len(keyBlock):])] = p
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for hash, p := range moved {
		if ctx.Err() != nil {
			return false, ctxError("data.GC", ctx)
		}
		b := make([]byte, p.length)
		if err := s.packs.readAt(id, b, p.offset); err != nil {
			return false, err
		}
		if verify(cid.NewCidV1(cid.Raw, []byte(hash)), b) != nil {
			continue // what is damaged is left behind
		}
		if err := w.store(hash, b); err != nil {
			return false, err
		}
	}
	if err := w.commit(); err != nil {
		return false, err
	}
	s.gcMu.Lock()
	defer s.gcMu.Unlock()
	hashes := make([]string, 0, len(moved))
	for h := range moved {
		if s.protected(h) {
			return false, nil
		}
		hashes = append(hashes, h)
	}
	return true, s.update(hashes, func(_ int, ps []place) []place {
		var out []place
		for _, p := range ps {
			if p.kind != atPack || p.id != id {
				out = append(out, p)
			}
		}
		return out
	}, &db.Batch{})
}
