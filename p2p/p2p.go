// Package p2p connects a node to the others: a libp2p host with its transports,
// discovery, routing of content, authenticated streams of messages, and gossip.
// It is the only package that configures libp2p.
//
// A [Network] is one node's presence. Peers find each other through static
// addresses, mDNS on a local network, and a Kademlia DHT of Perigee's own. A
// [Stream] carries length-prefixed canonical DAG-CBOR messages of the root
// package to one peer, whose identity the transport has proved; a [Topic]
// carries small signed messages to all that joined it. A node that nobody can
// reach directly is reached through relays, and tries to replace the relayed
// connection by a direct one.
//
// A network with a pre-shared key admits only nodes that have the key, and uses
// TCP only.
package p2p

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/identity"
)

// Config says how a node takes part in the network. Only Key is required.
type Config struct {
	Key *identity.Key

	Listen []string // multiaddrs to listen on; none: the node only dials
	Peers  []string // multiaddrs ending in /p2p/ID of peers to stay connected to
	PSK    []byte   // 32 bytes of a private network, nil for the public one; see ParsePSK

	MDNS      bool   // find peers on the local network
	DHT       string // "auto" (also ""), "server", "client" or "off"
	PublicDHT bool   // also take part in the public IPFS DHT, as a client

	Relays       []string // multiaddrs ending in /p2p/ID of relays to be reached through
	RelayService bool     // relay for others
	RelayBytes   int64    // most bytes each way of one relayed connection; 0: 1 GiB, none with a PSK; < 0: no limit
	RelaySeconds int64    // longest life of a relayed connection; 0: one hour, none with a PSK; < 0: no limit
	Reachability string   // "auto" (also ""), "public" or "private": what the node knows of itself
	PortMap      bool     // ask the router for a port (UPnP, NAT-PMP)

	MaxPeers   int // connections above which the least useful are closed; 0: 256
	MaxStreams int // concurrent inbound streams of one protocol from one peer; 0: 128

	Log *slog.Logger // nil: none
}

// Network is a node's presence among the others. It is safe for concurrent use.
type Network struct {
	cfg  Config
	log  *slog.Logger
	host host.Host
	self peer.ID
	id   perigee.PeerID

	dht    *dht.IpfsDHT // nil: off
	public *dht.IpfsDHT // nil: off
	gossip *pubsub.PubSub

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	shut   sync.Once
	closed atomic.Bool

	mu       sync.Mutex
	handlers map[string]*handler
	topics   map[string]*Topic
	known    map[peer.ID]*neighbour      // connected Perigee nodes
	lost     map[peer.ID][]chan struct{} // get a token when the last connection to the peer ended
	circuits map[peer.ID][]ma.Multiaddr  // addresses through relays with a reservation, which are among Addrs
	onPeer   []func(perigee.PeerID)
	closers  []func() error // run in reverse
}

// New starts a node's presence; ctx bounds only the start. An address that
// cannot be parsed or listened on is an error; a peer or relay that does not
// answer is not, and is tried again for ever.
func New(ctx context.Context, cfg Config) (*Network, error) {
	const op = "p2p.New"
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Network{
		cfg: cfg, log: cfg.Log,
		handlers: map[string]*handler{}, topics: map[string]*Topic{}, known: map[peer.ID]*neighbour{},
		lost: map[peer.ID][]chan struct{}{}, circuits: map[peer.ID][]ma.Multiaddr{},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.start(); err != nil {
		_ = n.Close()
		var e *perigee.Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, perigee.E(op, perigee.Internal, err, "cannot start the network")
	}
	return n, nil
}

func (n *Network) start() error {
	static, err := parsePeers("peer", n.cfg.Peers)
	if err != nil {
		return err
	}
	if err := n.startHost(); err != nil {
		return err
	}
	if n.gossip, err = n.newGossip(); err != nil {
		return err
	}
	if err := n.watchPeers(); err != nil {
		return err
	}
	n.startRouting()
	if n.cfg.MDNS {
		n.startMDNS()
	}
	for _, p := range static {
		n.keepConnected(p)
	}
	return n.startRelays()
}

// onClose registers what Close must undo.
func (n *Network) onClose(fn func() error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closers = append(n.closers, fn)
}

// Close leaves the network: it ends the contexts of all handlers, waits for
// them and for the network's own tasks, and closes every connection. A second
// Close does nothing.
func (n *Network) Close() error {
	var err error
	n.shut.Do(func() {
		n.closed.Store(true)
		n.cancel()
		n.mu.Lock()
		closers := n.closers
		n.mu.Unlock()
		// Tasks first: libraries do not bear being called while they close. A
		// handler that ignores its context is waited for only so long.
		done := make(chan struct{})
		go func() { n.tasks.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			n.log.Warn("some protocol handlers do not end; closing without them")
		}
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
	})
	if err != nil {
		return perigee.E("p2p.Close", perigee.Internal, err)
	}
	return nil
}

// task runs fn in the background, with a ctx that ends when the network closes.
// It reports false, and does nothing, once the network is closed.
func (n *Network) task(fn func(ctx context.Context)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed.Load() {
		return false
	}
	n.tasks.Go(func() { fn(n.ctx) })
	return true
}

// Host returns the libp2p host, for package data.
func (n *Network) Host() host.Host { return n.host }

// ID returns the node's peer ID.
func (n *Network) ID() perigee.PeerID { return n.id }

// Addrs returns the addresses under which others may reach this node, each
// ending in /p2p/ID. They change as listeners, relays and reachability do.
func (n *Network) Addrs() []string {
	var out []string
	for _, a := range n.host.Addrs() {
		out = append(out, a.String()+"/p2p/"+string(n.id))
	}
	return out
}

// AddAddrs remembers where a peer may be reached, such as from its signed
// offer. Malformed addresses and those beyond the 16th are ignored.
func (n *Network) AddAddrs(id perigee.PeerID, addrs []string) {
	p, err := decodePeer("p2p.AddAddrs", id)
	if err != nil || p == n.self {
		return
	}
	var parsed []ma.Multiaddr
	for _, s := range addrs[:min(len(addrs), 16)] {
		a, err := parseAddr(s)
		if err != nil {
			continue
		}
		transport, named := peer.SplitAddr(a)
		if transport != nil && (named == "" || named == p) {
			parsed = append(parsed, transport)
		}
	}
	n.host.Peerstore().AddAddrs(p, parsed, offeredAddrTTL)
}

// asPeerID converts a libp2p peer ID.
func asPeerID(p peer.ID) perigee.PeerID { return perigee.PeerID(p.String()) }

// decodePeer converts a peer ID for libp2p. The error is of kind Invalid.
func decodePeer(op string, id perigee.PeerID) (peer.ID, error) {
	if _, err := id.PublicKey(); err != nil {
		return "", perigee.E(op, perigee.Invalid, err)
	}
	p, err := peer.Decode(string(id))
	if err != nil {
		return "", perigee.E(op, perigee.Invalid, err, "%q is not a peer ID", string(id))
	}
	return p, nil
}
