package data

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/perigee-network/perigee"
)

// How long the serving side waits for the next request, and for the peer to
// take a frame.
const (
	requestWait = 60 * time.Second
	takeWait    = 30 * time.Second
)

// allowed asks the serving policy about a peer.
func (s *Store) allowed(p peer.ID) bool {
	return s.cfg.Serve == nil || s.cfg.Serve(perigee.PeerID(p.String()))
}

// serve answers the requests on one stream.
func (x *exchange) serve(st network.Stream) {
	p := st.Conn().RemotePeer()
	if !x.s.allowed(p) || !x.admit(p) {
		st.Reset()
		return
	}
	defer x.leave(p)
	defer context.AfterFunc(x.s.ctx, func() { st.Reset() })()
	r, w := bufio.NewReaderSize(st, 4<<10), bufio.NewWriterSize(st, 64<<10)
	for x.s.ctx.Err() == nil {
		_ = st.SetReadDeadline(time.Now().Add(requestWait))
		q, err := readRequest(r)
		if err != nil {
			if errors.Is(err, perigee.Corrupt) || errors.Is(err, perigee.Unsupported) {
				x.s.log.Debug("a malformed request", "peer", p.String(), "cause", err)
				st.Reset()
			}
			st.Close()
			return
		}
		if err := x.answer(st, w, q); err != nil {
			st.Reset()
			return
		}
	}
	st.Reset()
}

// admit counts a stream against the limits.
func (x *exchange) admit(p peer.ID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.serving >= serveAll || x.servingTo[p] >= serveEach {
		return false
	}
	x.serving++
	x.servingTo[p]++
	x.s.wg.Add(1)
	return true
}

func (x *exchange) leave(p peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.s.wg.Done()
	x.serving--
	if x.servingTo[p]--; x.servingTo[p] <= 0 {
		delete(x.servingTo, p)
	}
}

// served is a block read ahead of being sent.
type served struct {
	cid   cid.Cid
	data  []byte
	index int // in Want, or -1
	err   error
}

// answer sends what a request asks for. Reading and hashing the next blocks
// overlaps with sending.
func (x *exchange) answer(st network.Stream, w *bufio.Writer, q request) error {
	ctx, cancel := context.WithCancel(x.s.ctx)
	defer cancel()
	ahead := make(chan served, 3)
	go func() {
		defer close(ahead)
		give := func(b served) bool {
			select {
			case ahead <- b:
				return true
			case <-ctx.Done():
				return false
			}
		}
		switch q.Op {
		case opBlocks:
			x.readBlocks(q, give)
		case opTree:
			x.readTree(q, give)
		case opHave:
			x.readHave(ctx, q, give)
		}
	}()
	defer func() {
		cancel()
		for range ahead { // wait for the reading to end
		}
	}()
	end := trailer{Missing: []uint32{}}
	for b := range ahead {
		if b.err != nil {
			if b.index >= 0 {
				end.Missing = append(end.Missing, uint32(b.index))
			}
			continue
		}
		if x.s.cfg.Tamper != nil {
			b.data = x.s.cfg.Tamper(b.data)
		}
		_ = st.SetWriteDeadline(time.Now().Add(takeWait))
		if err := writeFrame(w, b.cid, b.data); err != nil {
			return err
		}
	}
	if err := x.s.ctx.Err(); err != nil {
		return err
	}
	_ = st.SetWriteDeadline(time.Now().Add(takeWait))
	if err := writeUvarint(w, 0); err != nil {
		return err
	}
	if err := writeMessage(w, end); err != nil {
		return err
	}
	return w.Flush()
}

func (x *exchange) readBlocks(q request, give func(served) bool) {
	for i, c := range q.Want {
		b, err := x.s.local(c.Cid())
		if !give(served{c.Cid(), b, i, err}) {
			return
		}
	}
}

// readTree reads the directories below the wanted roots, depth first, and the
// root nodes of their files. It stops at a budget: the asking side sees what it
// still lacks and asks again.
func (x *exchange) readTree(q request, give func(served) bool) {
	seen := map[string]bool{}
	blocks, bytes := 0, 0
	for i, root := range q.Want {
		stack, index := []cid.Cid{root.Cid()}, i
		for len(stack) > 0 {
			c := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if seen[string(c.Hash())] {
				continue
			}
			if blocks >= x.treeBlocks || bytes >= x.treeBytes {
				return
			}
			seen[string(c.Hash())] = true
			b, err := x.s.local(c)
			if !give(served{c, b, index, err}) {
				return
			}
			index = -1
			if err != nil || !isInner(c) {
				continue
			}
			blocks, bytes = blocks+1, bytes+len(b)
			n, err := parseUnixFS(b)
			if err != nil || kindOf(&n) != perigee.KindDir {
				continue
			}
			for j := len(n.Links) - 1; j >= 0; j-- {
				if isInner(n.Links[j].CID) {
					stack = append(stack, n.Links[j].CID)
				}
			}
		}
	}
}

var errIncomplete = errors.New("incomplete")

func (x *exchange) readHave(ctx context.Context, q request, give func(served) bool) {
	for i, c := range q.Want {
		ok, err := x.s.isHolder(ctx, c.Cid())
		if err == nil && !ok {
			err = errIncomplete
		}
		if err != nil && !give(served{index: i, err: err}) {
			return
		}
	}
}

// isHolder reports whether all of c is here, without walking trees: for a root
// that is not pinned the answer is whether its first block is here.
func (s *Store) isHolder(ctx context.Context, c cid.Cid) (bool, error) {
	if ok, err := s.isComplete(c); ok || err != nil {
		return ok, err
	}
	if _, err := s.db.Get(rootKey(c)); err == nil {
		r, err := s.root(ctx, c)
		return r.Complete, err
	}
	_, ok, err := s.haveLocal(string(c.Hash()))
	return ok, err
}
