package data

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/perigee-network/perigee"
)

// bitswapWindow is how many blocks are asked of bitswap at once; it slows down
// when asked for thousands.
const bitswapWindow = 512

// exchange is the part of a store that talks to other nodes.
type exchange struct {
	s    *Store
	host host.Host
	bs   *bitswap.Bitswap // nil when it is off

	treeBlocks, treeBytes int // budget of an answer to opTree

	mu        sync.Mutex
	closed    bool
	serving   int
	servingTo map[peer.ID]int

	news chan cid.Cid // roots to announce
}

// startExchange registers the protocols on the host.
func startExchange(s *Store) (*exchange, error) {
	x := &exchange{s: s, host: s.cfg.Host, treeBlocks: treeBlocks, treeBytes: treeBytes, servingTo: map[peer.ID]int{}, news: make(chan cid.Cid, 1024)}
	x.host.SetStreamHandler(Protocol, x.serve)
	if !s.cfg.NoBitswap {
		var finder routing.ContentDiscovery
		if s.cfg.Router != nil {
			finder = &discovery{s}
		}
		x.bs = bitswap.New(s.ctx, bsnet.NewFromIpfsHost(x.host), finder, &blockstoreView{s},
			bitswap.WithClientOption(client.WithoutDuplicatedBlockStats()),
			bitswap.WithServerOption(server.WithPeerBlockRequestFilter(func(p peer.ID, _ cid.Cid) bool { return s.allowed(p) })),
		)
	}
	if s.cfg.Router != nil {
		s.wg.Add(1)
		go x.announcer()
	}
	return x, nil
}

func (x *exchange) close() {
	x.host.RemoveStreamHandler(Protocol)
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	if x.bs != nil {
		x.bs.Close()
	}
}

func (x *exchange) self() perigee.PeerID { return perigee.PeerID(x.host.ID().String()) }

// connected lists the connected peers that speak Protocol.
func (x *exchange) connected() []perigee.PeerID {
	var out []perigee.PeerID
	for _, p := range x.host.Network().Peers() {
		if ok, err := x.host.Peerstore().SupportsProtocols(p, Protocol); err == nil && len(ok) > 0 {
			out = append(out, perigee.PeerID(p.String()))
		}
	}
	return out
}

// strangers lists the connected peers that do not.
func (x *exchange) strangers() []peer.ID {
	var out []peer.ID
	for _, p := range x.host.Network().Peers() {
		if ok, err := x.host.Peerstore().SupportsProtocols(p, Protocol); err != nil || len(ok) == 0 {
			out = append(out, p)
		}
	}
	return out
}

// viaBitswap fetches from any IPFS node and returns what nobody had. It gives up
// when nothing new has come for the configured time.
func (x *exchange) viaBitswap(ctx context.Context, f *fetch, wants []want) ([]want, error) {
	if x.bs == nil {
		return wants, nil
	}
	for _, p := range append(f.from, f.found...) {
		if id, err := peer.Decode(string(p)); err == nil && x.host.Network().Connectedness(id) != network.Connected {
			cctx, cancel := context.WithTimeout(ctx, x.s.cfg.Idle)
			_ = x.host.Connect(cctx, peer.AddrInfo{ID: id})
			cancel()
		}
	}
	// Perigee nodes have been asked by then, and whom the router knows is in
	// f.found: without strangers, waiting for bitswap would be waiting for nobody.
	strangers := x.strangers()
	if len(strangers) == 0 {
		return wants, nil
	}
	for _, p := range strangers {
		f.note(perigee.PeerID(p.String()), "was asked over bitswap", false)
	}
	session := x.bs.NewSession(ctx)
	for len(wants) > 0 {
		n := min(bitswapWindow, len(wants))
		rest, err := x.window(ctx, f, session, wants[:n])
		if err != nil || len(rest) > 0 {
			return append(rest, wants[n:]...), err
		}
		wants = wants[n:]
	}
	return nil, nil
}

type blockGetter interface {
	GetBlocks(context.Context, []cid.Cid) (<-chan blocks.Block, error)
}

// window fetches one window of blocks and returns what did not come.
func (x *exchange) window(ctx context.Context, f *fetch, from blockGetter, wants []want) ([]want, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := map[string]want{}
	keys := make([]cid.Cid, len(wants))
	for i, w := range wants {
		keys[i] = w.cid
		left[string(w.cid.Hash())] = w
	}
	ch, err := from.GetBlocks(ctx, keys)
	if err != nil {
		return nil, perigee.E("data.Fetch", perigee.Internal, err, "bitswap")
	}
	idle := time.NewTimer(x.s.cfg.Timeout)
	defer idle.Stop()
	for len(left) > 0 {
		select {
		case b, ok := <-ch:
			if !ok {
				return remaining(left), nil
			}
			if err := verify(b.Cid(), b.RawData()); err != nil {
				return nil, err
			}
			if err := f.w.put(b.Cid(), b.RawData()); err != nil {
				return nil, err
			}
			f.received("", len(b.RawData()))
			delete(left, string(b.Cid().Hash()))
			idle.Reset(x.s.cfg.Timeout)
		case <-idle.C:
			return remaining(left), nil
		case <-ctx.Done():
			if context.Cause(ctx) == context.Canceled {
				return nil, ctxError("data.Fetch", ctx)
			}
			return remaining(left), nil
		}
	}
	return nil, nil
}

func remaining(left map[string]want) []want {
	out := make([]want, 0, len(left))
	for _, w := range left {
		out = append(out, w)
	}
	return out
}

// announce tells bitswap peers that wait for a root, and in the background the
// router, that this node holds it.
func (s *Store) announce(c cid.Cid) {
	if s.net == nil {
		return
	}
	if s.net.bs != nil {
		if b, err := s.local(c); err == nil {
			if blk, err := blocks.NewBlockWithCid(b, c); err == nil {
				_ = s.net.bs.NotifyNewBlocks(s.ctx, blk)
			}
		}
	}
	if s.cfg.Router == nil {
		return
	}
	select {
	case s.net.news <- c:
	default: // the next round announces it
	}
}

// How long an announcement lasts elsewhere bounds how seldom it is renewed.
const announceEvery = 12 * time.Hour

// announcer announces new roots at once and all of them from time to time.
func (x *exchange) announcer() {
	defer x.s.wg.Done()
	t := time.NewTimer(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-x.s.ctx.Done():
			return
		case c := <-x.news:
			x.provide(c)
		case <-t.C:
			x.provideAll()
			t.Reset(announceEvery)
		}
	}
}

func (x *exchange) provide(c cid.Cid) {
	ctx, cancel := context.WithTimeout(x.s.ctx, time.Minute)
	defer cancel()
	if err := x.s.cfg.Router.Provide(ctx, perigee.NewCID(c)); err != nil && x.s.ctx.Err() == nil {
		x.s.log.Debug("cannot announce", "cid", c.String(), "cause", err)
	}
}

func (x *exchange) provideAll() {
	var roots []cid.Cid
	err := x.s.db.Scan([]byte(keyPin), nil, func(k, _ []byte) error {
		c, owner, err := parsePinKey(k)
		if err == nil && owner == OwnerUser {
			roots = append(roots, c)
		}
		return err
	})
	if err != nil {
		x.s.log.Warn("cannot list roots to announce", "cause", err)
	}
	for _, c := range roots {
		if x.s.ctx.Err() != nil {
			return
		}
		x.provide(c)
	}
}

// Holder is a node that has all of a root, or says so.
type Holder struct {
	Peer  perigee.PeerID `json:"peer"`
	Local bool           `json:"local"` // this node
	Via   string         `json:"via"`   // how it is known: local, connected (it said so) or router
}

// Holders returns the nodes that hold all of c: this one, connected Perigee
// nodes that say so within the idle time, and those the router finds.
func (s *Store) Holders(ctx context.Context, c perigee.CID) ([]Holder, error) {
	if err := defined("data.Holders", c); err != nil {
		return nil, err
	}
	var out []Holder
	info, err := s.root(ctx, c.Cid())
	if err != nil {
		return nil, err
	}
	if info.Complete {
		h := Holder{Local: true, Via: "local"}
		if s.net != nil {
			h.Peer = s.net.self()
		}
		out = append(out, h)
	}
	if s.net == nil {
		return out, nil
	}
	seen := map[perigee.PeerID]bool{s.net.self(): true}
	for _, p := range s.net.askHave(ctx, c) {
		seen[p] = true
		out = append(out, Holder{Peer: p, Via: "connected"})
	}
	if s.cfg.Router != nil {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		found, err := s.cfg.Router.FindHolders(ctx, c, 32)
		if err != nil && !errors.Is(err, perigee.NotFound) {
			s.log.Debug("the router failed", "cid", c.String(), "cause", err)
		}
		for _, p := range found {
			if !seen[p] {
				seen[p] = true
				out = append(out, Holder{Peer: p, Via: "router"})
			}
		}
	}
	return out, nil
}

// askHave asks the connected Perigee nodes whether they hold c.
func (x *exchange) askHave(ctx context.Context, c perigee.CID) []perigee.PeerID {
	ctx, cancel := context.WithTimeout(ctx, x.s.cfg.Idle)
	defer cancel()
	var mu sync.Mutex
	var out []perigee.PeerID
	var wg sync.WaitGroup
	limit := make(chan struct{}, 32)
	for _, p := range x.connected() {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			if x.askOne(ctx, p, c) {
				mu.Lock()
				out = append(out, p)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

func (x *exchange) askOne(ctx context.Context, p perigee.PeerID, c perigee.CID) bool {
	h, err := x.open(ctx, p)
	if err != nil {
		return false
	}
	defer h.st.Close()
	_ = h.st.SetDeadline(time.Now().Add(x.s.cfg.Idle))
	if writeMessage(h.w, request{opHave, []perigee.CID{c}}) != nil || h.w.Flush() != nil {
		h.st.Reset()
		return false
	}
	var end trailer
	id, _, err := readFrame(h.r, nil, nil)
	if err != nil || id.Defined() || readMessage(h.r, &end) != nil {
		h.st.Reset()
		return false
	}
	return end.Fault == nil && len(end.Missing) == 0
}

// discovery lets bitswap find holders through the router.
type discovery struct{ s *Store }

func (d *discovery) FindProvidersAsync(ctx context.Context, c cid.Cid, count int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	go func() {
		defer close(out)
		if count <= 0 || count > 32 {
			count = 32
		}
		found, err := d.s.cfg.Router.FindHolders(ctx, perigee.NewCID(c), count)
		if err != nil {
			return
		}
		for _, p := range found {
			id, err := peer.Decode(string(p))
			if err != nil {
				continue
			}
			select {
			case out <- peer.AddrInfo{ID: id, Addrs: d.s.cfg.Host.Peerstore().Addrs(id)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// blockstoreView shows the store to bitswap as a read-only block store.
type blockstoreView struct{ s *Store }

func (v *blockstoreView) Has(_ context.Context, c cid.Cid) (bool, error) {
	_, ok, err := v.s.haveLocal(string(c.Hash()))
	return ok, err
}

func (v *blockstoreView) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := v.s.local(c)
	if err != nil {
		if errors.Is(err, perigee.NotFound) || errors.Is(err, perigee.Corrupt) {
			err = format.ErrNotFound{Cid: c}
		}
		return nil, err
	}
	if v.s.cfg.Tamper != nil {
		b = v.s.cfg.Tamper(b)
	}
	return blocks.NewBlockWithCid(b, c)
}

func (v *blockstoreView) GetSize(_ context.Context, c cid.Cid) (int, error) {
	n, ok, err := v.s.haveLocal(string(c.Hash()))
	if err == nil && !ok {
		err = format.ErrNotFound{Cid: c}
	}
	return int(n), err
}

var errReadOnly = perigee.E("data.bitswap", perigee.Unsupported, "bitswap does not write to this store")

func (v *blockstoreView) Put(context.Context, blocks.Block) error       { return errReadOnly }
func (v *blockstoreView) PutMany(context.Context, []blocks.Block) error { return errReadOnly }
func (v *blockstoreView) DeleteBlock(context.Context, cid.Cid) error    { return errReadOnly }

func (v *blockstoreView) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, errReadOnly
}
