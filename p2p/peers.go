package p2p

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/perigee-network/perigee"
)

// PeerInfo describes a connected peer.
type PeerInfo struct {
	ID        perigee.PeerID `json:"id"`
	Addrs     []string       `json:"addrs"`      // of the connections to it
	LatencyMS float64        `json:"latency_ms"` // round trip in milliseconds; 0: not measured
	Direction string         `json:"direction"`  // "inbound" or "outbound"
	Relayed   bool           `json:"relayed"`    // only through a relay
	Version   string         `json:"version"`    // of Perigee; of something else, what it calls itself
}

// Peers returns the connected peers, sorted by ID.
func (n *Network) Peers() []PeerInfo {
	var out []PeerInfo
	for _, p := range n.host.Network().Peers() {
		conns := n.host.Network().ConnsToPeer(p)
		if len(conns) == 0 {
			continue
		}
		info := PeerInfo{ID: asPeerID(p), Relayed: true, Direction: "outbound"}
		if conns[0].Stat().Direction == network.DirInbound {
			info.Direction = "inbound"
		}
		for _, c := range conns {
			info.Addrs = append(info.Addrs, c.RemoteMultiaddr().String())
			info.Relayed = info.Relayed && isRelayed(c)
		}
		info.LatencyMS = float64(n.latency(p).Microseconds()) / 1000
		if v, err := n.host.Peerstore().Get(p, "AgentVersion"); err == nil {
			if name, ok := v.(string); ok {
				info.Version = strings.TrimPrefix(printable(name), agentPrefix)
			}
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b PeerInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// printable cuts and cleans a text that a peer chose.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 128)]
}

func isRelayed(c network.Conn) bool {
	return strings.Contains(c.RemoteMultiaddr().String(), "/p2p-circuit")
}

// Connect connects to the peer at a multiaddr that ends in /p2p/ID. Errors are
// of kind Invalid when the address is malformed or another node answers there,
// Timeout when ctx passed its deadline, and Unavailable.
func (n *Network) Connect(ctx context.Context, addr string) error {
	const op = "p2p.Connect"
	info, err := parsePeer(addr)
	if err != nil {
		return err
	}
	if info.ID == n.self {
		return perigee.E(op, perigee.Invalid, "%s is this node itself", info.ID)
	}
	if err := n.connect(ctx, info); err != nil {
		return n.dialError(ctx, op, asPeerID(info.ID), err)
	}
	return nil
}

func (n *Network) connect(ctx context.Context, info peer.AddrInfo) error {
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID) // somebody asked for it now
	}
	return n.host.Connect(network.WithAllowLimitedConn(ctx, "connect"), info)
}

// keepConnected connects to a static peer, again whenever the connection is
// lost, with growing pauses while it does not answer.
func (n *Network) keepConnected(info peer.AddrInfo) {
	if info.ID == n.self {
		return // one list of peers may serve all nodes of a network
	}
	lost := n.watchLoss(info.ID)
	n.host.ConnManager().Protect(info.ID, "static")
	n.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	n.task(func(ctx context.Context) {
		const first, longest = 250 * time.Millisecond, 30 * time.Second
		pause := first
		for ctx.Err() == nil {
			if n.host.Network().Connectedness(info.ID) == network.NotConnected {
				c, cancel := context.WithTimeout(ctx, connectTimeout)
				err := n.connect(c, info)
				if err != nil && ctx.Err() == nil {
					level := n.log.Debug
					if pause == first {
						level = n.log.Warn
					}
					level("a static peer does not answer; trying again", "error", n.dialError(c, "p2p", asPeerID(info.ID), err))
				}
				cancel()
				if err != nil {
					sleep(ctx, pause/2+rand.N(pause))
					pause = min(2*pause, longest)
					continue
				}
			}
			pause = first
			select {
			case <-ctx.Done():
			case <-lost:
			}
		}
	})
}

// watchLoss returns a channel that gets a token whenever the last connection to
// p ended.
func (n *Network) watchLoss(p peer.ID) <-chan struct{} {
	lost := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[p] = append(n.lost[p], lost)
	return lost
}

// OnPeer has fn called, in a goroutine of its own, for every Perigee node that
// is connected now or connects later, once per time that it appears. It is the
// moment to tell a newcomer what gossip told the others before.
func (n *Network) OnPeer(fn func(perigee.PeerID)) {
	n.mu.Lock()
	n.onPeer = append(n.onPeer, fn)
	var now []peer.ID
	for p := range n.known {
		now = append(now, p)
	}
	n.mu.Unlock()
	for _, p := range now {
		n.task(func(context.Context) { fn(asPeerID(p)) })
	}
}

// Nodes returns the connected Perigee nodes, in no order.
func (n *Network) Nodes() []perigee.PeerID {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]perigee.PeerID, 0, len(n.known))
	for p := range n.known {
		out = append(out, asPeerID(p))
	}
	return out
}

func (n *Network) nodeCount() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.known)
}

// watchPeers follows who comes and goes.
func (n *Network) watchPeers() error {
	sub, err := n.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerConnectednessChanged)})
	if err != nil {
		return err
	}
	n.task(func(ctx context.Context) {
		defer sub.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-sub.Out():
				if !ok {
					return
				}
				switch e := e.(type) {
				case event.EvtPeerIdentificationCompleted:
					if version, ok := strings.CutPrefix(printable(e.AgentVersion), agentPrefix); ok {
						n.appeared(e.Peer, version)
					}
				case event.EvtPeerConnectednessChanged:
					if e.Connectedness == network.NotConnected {
						n.vanished(e.Peer)
					}
				}
			}
		}
	})
	return nil
}

func (n *Network) appeared(p peer.ID, version string) {
	if n.host.Network().Connectedness(p) == network.NotConnected {
		return
	}
	n.mu.Lock()
	if n.known[p] != nil {
		n.mu.Unlock()
		return
	}
	now := &neighbour{}
	n.known[p] = now
	callbacks := slices.Clone(n.onPeer)
	n.mu.Unlock()
	n.log.Debug("a node appeared", "peer", p, "version", version)
	n.host.ConnManager().TagPeer(p, "perigee", 50)
	for _, fn := range callbacks {
		n.task(func(context.Context) { fn(asPeerID(p)) })
	}
	n.task(func(ctx context.Context) { n.measure(ctx, p, now) })
}

// neighbour is a connected Perigee node, from its appearance to its end.
type neighbour struct{ latency time.Duration }

const (
	latencySamples = 3 // the least of them counts: the others waited for processors
	latencyPause   = 5 * time.Minute
)

// measure keeps a node's latency current for one stay of it.
func (n *Network) measure(ctx context.Context, p peer.ID, k *neighbour) {
	for ctx.Err() == nil && n.stays(p, k) {
		least := time.Duration(0)
		c, cancel := context.WithTimeout(ctx, 10*time.Second)
		samples := ping.Ping(c, n.host, p)
		for range latencySamples {
			r := <-samples
			if r.Error != nil || r.RTT == 0 {
				break
			}
			if least == 0 || r.RTT < least {
				least = r.RTT
			}
		}
		cancel()
		n.mu.Lock()
		if least > 0 {
			k.latency = least
		}
		n.mu.Unlock()
		sleep(ctx, latencyPause)
	}
}

// stays reports whether k is still the present stay of p.
func (n *Network) stays(p peer.ID, k *neighbour) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[p] == k
}

func (n *Network) latency(p peer.ID) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k := n.known[p]; k != nil {
		return k.latency
	}
	return 0
}

func (n *Network) vanished(p peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, p)
	for _, lost := range n.lost[p] {
		select {
		case lost <- struct{}{}:
		default:
		}
	}
}

// startMDNS looks for nodes on the local network. Private networks each have a
// service name of their own, so that they do not try each other's doors.
func (n *Network) startMDNS() {
	service := "_perigee._udp"
	if n.cfg.PSK != nil {
		sum := sha256.Sum256(append([]byte("perigee mdns "), n.cfg.PSK...))
		service = "_perigee-" + hex.EncodeToString(sum[:4]) + "._udp"
	}
	s := mdns.NewMdnsService(n.host, service, found{n, make(chan struct{}, 16)})
	if err := s.Start(); err != nil {
		n.log.Warn("cannot look for nodes on the local network", "error", err)
		return
	}
	n.onClose(s.Close)
}

// found connects to what mDNS finds, a few at a time.
type found struct {
	n     *Network
	slots chan struct{}
}

func (f found) HandlePeerFound(info peer.AddrInfo) {
	if info.ID == f.n.self || f.n.host.Network().Connectedness(info.ID) == network.Connected {
		return
	}
	select {
	case f.slots <- struct{}{}:
	default:
		return // it will be found again
	}
	started := f.n.task(func(ctx context.Context) {
		defer func() { <-f.slots }()
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if err := f.n.host.Connect(ctx, info); err != nil {
			f.n.log.Debug("a node on the local network does not answer", "peer", info.ID, "error", err)
		}
	})
	if !started {
		<-f.slots
	}
}
