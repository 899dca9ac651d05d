package data

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
)

// Fetched is what a fetch brought.
type Fetched struct {
	Bytes int64                    // of blocks received
	From  map[perigee.PeerID]int64 // from each holder; blocks that came over bitswap are not told apart
}

// want is a block to be fetched.
type want struct {
	cid  cid.Cid
	size int64 // claimed, 0 if unknown
	dir  bool  // may be a directory: ask for what lies below as well
}

// fetch is one fetch in progress.
type fetch struct {
	s    *Store
	w    *session
	root cid.Cid
	from []perigee.PeerID

	mu       sync.Mutex
	bytes    int64
	got      map[perigee.PeerID]int64
	asked    map[perigee.PeerID]string // and how that went
	dropped  map[perigee.PeerID]bool   // given up for good
	searched bool                      // the router was asked
	found    []perigee.PeerID          // by the router
	progress func(n int64)
}

func (s *Store) newFetch(w *session, root cid.Cid, from []perigee.PeerID, progress func(int64)) *fetch {
	return &fetch{s: s, w: w, root: root, from: from, progress: progress,
		got: map[perigee.PeerID]int64{}, asked: map[perigee.PeerID]string{}, dropped: map[perigee.PeerID]bool{}}
}

// received counts a block that came from a peer ("" for bitswap).
func (f *fetch) received(from perigee.PeerID, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += int64(n)
	if from != "" {
		f.got[from] += int64(n)
	}
	if f.progress != nil {
		f.progress(f.bytes)
	}
}

// note records how asking a peer went; drop gives it up for the whole fetch.
func (f *fetch) note(p perigee.PeerID, outcome string, drop bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dropped[p] {
		return // the first reason counts
	}
	f.asked[p] = outcome
	if drop {
		f.dropped[p] = true
	}
}

// Fetch brings what Tree needs of in to this node: metadata and the leaves of
// the whole, or of the range and its alignment. It asks the nodes in from, then
// connected Perigee nodes, then holders that the router finds, several at once,
// and at last any IPFS node over bitswap. Blocks that are here are not asked
// for, so that a fetch that was interrupted goes on where it stood. progress may
// be nil; it gets the bytes received so far and is never called concurrently.
// Nothing is pinned: pin or hold in.CID before. Errors: Unavailable names who
// was asked; Exhausted; Timeout and Cancelled follow ctx.
func (s *Store) Fetch(ctx context.Context, in perigee.PartInput, from []perigee.PeerID, progress func(n int64)) (Fetched, error) {
	if err := defined("data.Fetch", in.CID); err != nil {
		return Fetched{}, err
	}
	if ok, err := s.isComplete(in.CID.Cid()); ok || err != nil {
		return Fetched{From: map[perigee.PeerID]int64{}}, err
	}
	leave, err := s.alone(ctx, in)
	if err != nil {
		return Fetched{}, err
	}
	defer leave()
	w := s.newSession()
	defer w.end()
	w.lazy = true
	f := s.newFetch(w, in.CID.Cid(), from, progress)
	if in.Length > 0 {
		err = f.slice(ctx, in)
	} else {
		err = f.whole(ctx, false)
	}
	// What came is kept even when the fetch failed: the next one goes on from it.
	if cerr := w.commit(); err == nil {
		err = cerr
	}
	return Fetched{f.bytes, f.got}, err
}

// alone makes a second fetch of the same thing wait for the first, so that the
// bytes come once.
func (s *Store) alone(ctx context.Context, in perigee.PartInput) (leave func(), err error) {
	key := fetchKey{in.CID, in.Offset, in.Length}
	for {
		s.fetchMu.Lock()
		busy, ok := s.fetching[key]
		if !ok {
			done := make(chan struct{})
			s.fetching[key] = done
			s.fetchMu.Unlock()
			return func() {
				s.fetchMu.Lock()
				delete(s.fetching, key)
				s.fetchMu.Unlock()
				close(done)
			}, nil
		}
		s.fetchMu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctxError("data.Fetch", ctx)
		}
	}
}

// fetchKey names what a fetch brings.
type fetchKey struct {
	cid            perigee.CID
	offset, length int64
}

func ctxError(op string, ctx context.Context) error {
	err := context.Cause(ctx)
	return perigee.E(op, perigee.KindOf(ctx.Err()), err)
}

// whole fetches everything below the root, or only its metadata, in rounds:
// walk what is here, ask for all that is missing, again.
func (f *fetch) whole(ctx context.Context, metaOnly bool) error {
	for {
		var wants []want
		seen := map[string]bool{}
		k := f.walker()
		k.missing = func(c cid.Cid, parent *ufsNode, claimed uint64) error {
			if seen[string(c.Hash())] || (metaOnly && !isInner(c) && parent != nil) {
				return nil
			}
			inFile := parent != nil && (parent.Type == ufsFile || parent.Type == ufsRaw)
			if metaOnly && inFile {
				return nil
			}
			seen[string(c.Hash())] = true
			wants = append(wants, want{c, int64(min(claimed, MaxBlock)), isInner(c) && !inFile})
			return nil
		}
		if _, err := k.walk(ctx, f.root); err != nil {
			return err
		}
		if len(wants) == 0 {
			return nil
		}
		if err := f.blocks(ctx, wants); err != nil {
			return err
		}
	}
}

// slice fetches the range of a file that a part reads.
func (f *fetch) slice(ctx context.Context, in perigee.PartInput) error {
	get := f.getter(ctx)
	c := in.CID.Cid()
	size, err := f.s.fileSize(c, get)
	if err != nil {
		return err
	}
	if in.Offset < 0 || in.Length < 0 || in.Offset > maxSize || in.Length > maxSize {
		return perigee.E("data.Fetch", perigee.Invalid, "a range from %d of length %d", in.Offset, in.Length)
	}
	lo, hi := max(min(in.Offset, size)-1, 0), min(in.Offset+in.Length, size)
	for {
		wants, err := f.missingIn(ctx, c, size, lo, hi)
		if err != nil {
			return err
		}
		if len(wants) == 0 {
			break
		}
		if err := f.blocks(ctx, wants); err != nil {
			return err
		}
	}
	_, _, _, err = f.s.bounds(ctx, in, get) // fetches what the alignment reaches
	return err
}

// missingIn lists the blocks of a file's range that are not here, as far as the
// metadata here tells.
func (f *fetch) missingIn(ctx context.Context, c cid.Cid, size, lo, hi int64) ([]want, error) {
	var wants []want
	seen := map[string]bool{}
	k := f.walker()
	miss := func(c cid.Cid, size int64) {
		if !seen[string(c.Hash())] {
			seen[string(c.Hash())] = true
			wants = append(wants, want{cid: c, size: min(size, MaxBlock)})
		}
	}
	get := func(c cid.Cid) ([]byte, error) {
		b, err := k.get(c)
		if errors.Is(err, perigee.NotFound) {
			miss(c, 0)
			return nil, errSkip
		}
		return b, err
	}
	err := fileRuns(ctx, c, -1, lo, hi, get, func(r run) error {
		if _, ok := known(r.cid); ok || r.block != nil {
			return nil
		}
		_, ok, err := k.have(string(r.cid.Hash()))
		if !ok {
			miss(r.cid, max(r.length, 0))
		}
		return err
	})
	return wants, err
}

// walker is the session's, with leaves in users' files that changed counted as
// missing, so that they are fetched.
func (f *fetch) walker() walker {
	k := f.w.walker()
	have, files := k.have, map[uint64]*fileCheck{}
	k.have = func(hash string) (int64, bool, error) {
		n, ok, err := have(hash)
		if !ok || err != nil {
			return n, ok, err
		}
		ps, err := f.s.places(hash)
		if err != nil || len(ps) == 0 || (ps[0].kind != atFile && ps[0].kind != atWrapped) {
			return n, ok, err
		}
		c := cid.NewCidV1(cid.Raw, []byte(hash))
		if _, err := f.s.usable(run{cid: c}, ps, files); err != nil {
			if errors.Is(err, perigee.Corrupt) || errors.Is(err, perigee.NotFound) {
				return 0, false, nil
			}
			return 0, false, err
		}
		return n, true, nil
	}
	return k
}

// getter returns blocks of the session or the store, or fetches them.
func (f *fetch) getter(ctx context.Context) getter {
	return func(c cid.Cid) ([]byte, error) {
		f.w.touch(string(c.Hash()))
		b, err := f.w.block(c)
		if err == nil || f.s.net == nil || !(errors.Is(err, perigee.NotFound) || errors.Is(err, perigee.Corrupt)) {
			return b, err
		}
		if err := f.blocks(ctx, []want{{cid: c}}); err != nil {
			return nil, err
		}
		return f.w.block(c)
	}
}

// getMeta returns a getter for metadata below root: what is missing is fetched
// in one go at the first miss, and kept, unpinned.
func (s *Store) getMeta(ctx context.Context, root cid.Cid, from []perigee.PeerID) getter {
	tried := false
	return func(c cid.Cid) ([]byte, error) {
		b, err := s.local(c)
		if err == nil || s.net == nil || !(errors.Is(err, perigee.NotFound) || errors.Is(err, perigee.Corrupt)) {
			return b, err
		}
		if !tried {
			tried = true
			w := s.newSession()
			defer w.end()
			ferr := s.newFetch(w, root, from, nil).whole(ctx, true)
			if cerr := w.commit(); ferr == nil {
				ferr = cerr
			}
			if ferr != nil {
				return nil, ferr
			}
		}
		return s.block(ctx, c, from)
	}
}

// blocks fetches the blocks wanted, from whoever has them.
func (f *fetch) blocks(ctx context.Context, wants []want) error {
	if f.s.net == nil {
		return perigee.E("data.Fetch", perigee.Unavailable, "%s is not on this node, which is offline", wants[0].cid)
	}
	rest, err := f.fromHolders(ctx, wants, f.from)
	if err == nil && len(rest) > 0 {
		rest, err = f.fromHolders(ctx, rest, f.connected())
	}
	if err == nil && len(rest) > 0 {
		rest, err = f.fromHolders(ctx, rest, f.search(ctx))
	}
	if err == nil && len(rest) > 0 {
		rest, err = f.s.net.viaBitswap(ctx, f, rest)
	}
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return perigee.E("data.Fetch", perigee.KindOf(ctx.Err()), "time ran out looking for %s; %s", rest[0].cid, f.outcome())
	}
	return perigee.E("data.Fetch", perigee.Unavailable, "%s; none holds %s", f.outcome(), rest[0].cid)
}

// connected lists the connected Perigee nodes that were not named.
func (f *fetch) connected() []perigee.PeerID {
	return slices.DeleteFunc(f.s.net.connected(), func(p perigee.PeerID) bool { return slices.Contains(f.from, p) })
}

// search asks the router for holders of the root, once.
func (f *fetch) search(ctx context.Context) []perigee.PeerID {
	if f.s.cfg.Router == nil || f.searched {
		return f.found
	}
	f.searched = true
	ctx, cancel := context.WithTimeout(ctx, f.s.cfg.Timeout)
	defer cancel()
	found, err := f.s.cfg.Router.FindHolders(ctx, perigee.NewCID(f.root), 16)
	if err != nil && ctx.Err() == nil {
		f.s.log.Debug("the router failed", "cid", f.root.String(), "cause", err)
	}
	f.found = found
	return found
}

// outcome says who was asked and how that went.
func (f *fetch) outcome() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return "no peer is connected or known to ask"
	}
	var parts []string
	for _, p := range slices.Sorted(maps.Keys(f.asked)) {
		if len(parts) == 8 {
			parts = append(parts, fmt.Sprintf("and %d more", len(f.asked)-8))
			break
		}
		parts = append(parts, p.Short()+" "+f.asked[p])
	}
	noun := "peers"
	if len(f.asked) == 1 {
		noun = "peer"
	}
	return fmt.Sprintf("asked %d %s: %s", len(f.asked), noun, strings.Join(parts, ", "))
}

// hedgeAfter is how long a block may be due from one holder before an idle one
// is asked for it too.
const hedgeAfter = 2 * time.Second
