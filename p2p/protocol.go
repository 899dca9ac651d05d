package p2p

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/perigee-network/perigee"
)

// firstMessageTimeout is how long a peer that opened a stream may take to send
// its first message.
const firstMessageTimeout = 30 * time.Second

// handler answers one protocol and counts its streams.
type handler struct {
	fn func(ctx context.Context, s *Stream)

	mu     sync.Mutex
	open   int
	byPeer map[peer.ID]int
}

// maxOpen bounds the streams of one protocol from all peers together.
const maxOpen = 4096

func (h *handler) enter(p peer.ID, perPeer int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open >= maxOpen || h.byPeer[p] >= perPeer {
		return false
	}
	h.open++
	h.byPeer[p]++
	return true
}

func (h *handler) leave(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
	if h.byPeer[p]--; h.byPeer[p] == 0 {
		delete(h.byPeer, p)
	}
}

// Handle has fn answer streams of a protocol that peers open, and that this
// node opens to itself. Each runs in its own goroutine, with a ctx that ends
// when the network closes. The stream is closed when fn returns; a panic of fn
// resets it and is logged. The peer's first message is awaited for 30 seconds;
// fn sets deadlines for what follows. A peer with too many streams open, see
// Config.MaxStreams, gets an error of kind Busy. A later Handle of the same
// protocol replaces fn for new streams.
func (n *Network) Handle(proto string, fn func(ctx context.Context, s *Stream)) {
	h := &handler{fn: fn, byPeer: map[peer.ID]int{}}
	n.mu.Lock()
	n.handlers[proto] = h
	n.mu.Unlock()
	n.host.SetStreamHandler(protocol.ID(proto), func(s network.Stream) {
		p := s.Conn().RemotePeer()
		who := asPeerID(p)
		if _, err := who.PublicKey(); err != nil { // every Perigee node has an Ed25519 key
			_ = s.ResetWithError(network.StreamGated)
			return
		}
		n.serve(h, p, who, proto, s)
	})
}

func (n *Network) serve(h *handler, p peer.ID, who perigee.PeerID, proto string, r raw) {
	if !h.enter(p, n.cfg.MaxStreams) {
		_ = r.ResetWithError(network.StreamResourceLimitExceeded)
		return
	}
	if !n.task(func(ctx context.Context) {
		defer h.leave(p)
		_ = r.SetReadDeadline(time.Now().Add(firstMessageTimeout))
		s := newStream(ctx, r, who, proto)
		s.first.Store(true)
		defer func() {
			if cause := recover(); cause != nil {
				n.log.Error("a protocol handler failed", "protocol", proto, "peer", who, "panic", cause, "stack", string(debug.Stack()))
				s.reset(codePanic)
				return
			}
			_ = s.Close()
		}()
		h.fn(ctx, s)
	}) {
		h.leave(p)
		_ = r.ResetWithError(network.StreamShutdown)
	}
}

// Open opens a stream to a peer, connecting to it first if need be, at the
// addresses known or found through the DHT. ctx bounds the whole life of the
// stream: when it ends, the stream is reset. The caller must Close or Reset the
// stream. Opening to this node itself reaches its own handler.
func (n *Network) Open(ctx context.Context, to perigee.PeerID, proto string) (*Stream, error) {
	const op = "p2p.Open"
	p, err := decodePeer(op, to)
	if err != nil {
		return nil, err
	}
	if p == n.self {
		return n.openSelf(ctx, proto)
	}
	ctx2 := network.WithAllowLimitedConn(ctx, proto) // relayed connections will do
	s, err := n.host.NewStream(ctx2, p, protocol.ID(proto))
	if err != nil {
		if n.host.Network().Connectedness(p) == network.NotConnected {
			return nil, n.dialError(ctx, op, to, err)
		}
		return nil, streamError(ctx, op, to, proto, err)
	}
	return newStream(ctx, s, to, proto), nil
}

// openSelf connects this node to its own handler within the process.
func (n *Network) openSelf(ctx context.Context, proto string) (*Stream, error) {
	n.mu.Lock()
	h := n.handlers[proto]
	n.mu.Unlock()
	switch {
	case n.closed.Load():
		return nil, perigee.E("p2p.Open", perigee.Unavailable, "the network is closed")
	case h == nil:
		return nil, perigee.E("p2p.Open", perigee.Unsupported, "this node does not speak %s", proto)
	}
	near, far := loopback()
	n.serve(h, n.self, n.id, proto, far)
	return newStream(ctx, near, n.id, proto), nil
}

// Call sends req to a peer and, unless resp is nil, receives its one answer
// into resp. Errors are those of Open and Stream; a fault inside the answer is
// the caller's to look for.
func (n *Network) Call(ctx context.Context, to perigee.PeerID, proto string, req, resp any) error {
	s, err := n.Open(ctx, to, proto)
	if err != nil {
		return err
	}
	defer s.Reset() // no effect after Close
	if err := s.Send(req); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if resp == nil {
		if _, err := s.Read(make([]byte, 1)); err != nil && err != io.EOF {
			return err
		}
		return s.Close()
	}
	if err := s.Receive(resp); err != nil {
		if errors.Is(err, io.EOF) {
			return perigee.E("p2p.Call", perigee.Unavailable, "peer %s ended the stream on %s without an answer", to, proto)
		}
		return err
	}
	return s.Close()
}
