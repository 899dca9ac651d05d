package p2p

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/perigee-network/perigee"
)

// agent is how a node names itself to others; the prefix tells Perigee nodes
// from other users of libp2p.
const (
	agentPrefix = "perigee/"
	agent       = agentPrefix + perigee.Version
)

// startHost makes the libp2p host, with the DHTs inside as its peer routing.
func (n *Network) startHost() (err error) {
	n.id = n.cfg.Key.Peer()
	if n.self, err = decodePeer("p2p.New", n.id); err != nil {
		return err
	}
	listen, skipped, err := n.cfg.listenAddrs()
	if err != nil {
		return err
	}
	if len(skipped) > 0 {
		n.log.Info("not listening on UDP: a private network is TCP only", "addrs", skipped)
	}
	for _, a := range listen {
		if err := probe(a); err != nil {
			return perigee.E("p2p.New", perigee.Unavailable, err, "cannot listen on %s", a)
		}
	}
	opts, err := n.options(listen)
	if err != nil {
		return err
	}
	if n.host, err = libp2p.New(opts...); err != nil {
		return perigee.E("p2p.New", perigee.Unavailable, err, "cannot start the network, listening on %v", listen)
	}
	n.onClose(n.host.Close)
	for _, d := range n.routers() {
		n.onClose(d.Close)
	}
	// libp2p is content when one address of several works.
	for _, want := range listen {
		if !slices.ContainsFunc(n.host.Network().ListenAddresses(), func(a ma.Multiaddr) bool { return listensOn(a, want) }) {
			return perigee.E("p2p.New", perigee.Unavailable, "cannot listen on %s: the port is in use, or the transport is not spoken (TCP and QUIC are)", want)
		}
	}
	return nil
}

// options are the host's.
func (n *Network) options(listen []ma.Multiaddr) ([]libp2p.Option, error) {
	key, err := n.cfg.Key.Libp2p()
	if err != nil {
		return nil, err
	}
	limits, err := n.resources()
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(n.cfg.MaxPeers*3/4, n.cfg.MaxPeers, connmgr.WithGracePeriod(time.Minute))
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.UserAgent(agent),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), // faster than Noise, which Kubo also speaks
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableMetrics(),
		libp2p.EnableNATService(),
		libp2p.EnableAutoNATv2(),
		libp2p.EnableHolePunching(),
	}
	if n.cfg.DHT != "off" || n.cfg.PublicDHT {
		opts = append(opts, libp2p.Routing(n.newRouting))
	}
	if len(listen) > 0 {
		opts = append(opts, libp2p.ListenAddrs(listen...))
	} else {
		opts = append(opts, libp2p.NoListenAddrs)
	}
	if n.cfg.PSK != nil {
		opts = append(opts, libp2p.PrivateNetwork(n.cfg.PSK))
	} else {
		opts = append(opts, libp2p.Transport(libp2pquic.NewTransport))
	}
	if n.cfg.PortMap {
		opts = append(opts, libp2p.NATPortMap())
	}
	return append(opts, n.relaying()...), nil
}

// probe binds an address for a moment, without sharing its port. libp2p shares
// TCP ports, so that two nodes of one machine could both listen on one and get
// each other's connections.
func probe(a ma.Multiaddr) error {
	if len(a) < 2 {
		return nil // libp2p says what is wrong with it
	}
	switch network, host, err := manet.DialArgs(a[:2]); {
	case err != nil:
		return nil
	case strings.HasPrefix(network, "tcp"):
		l, err := net.Listen(network, host)
		if err != nil {
			return err
		}
		return l.Close()
	case strings.HasPrefix(network, "udp"):
		l, err := net.ListenPacket(network, host)
		if err != nil {
			return err
		}
		return l.Close()
	}
	return nil
}

// listensOn reports whether an address that is listened on is the one wanted,
// whose port may be 0.
func listensOn(a, want ma.Multiaddr) bool {
	return slices.EqualFunc(a, want, func(p, q ma.Component) bool {
		code := q.Protocol().Code
		anyPort := (code == ma.P_TCP || code == ma.P_UDP) && q.Value() == "0"
		return p.Protocol().Code == code && (anyPort || p.Value() == q.Value())
	})
}

// relaying returns the options of reachability and relays.
func (n *Network) relaying() []libp2p.Option {
	// libp2p.NoListenAddrs turns the relay transport off as well: turn it on.
	opts := []libp2p.Option{libp2p.EnableRelay(), libp2p.AddrsFactory(n.withCircuits)}
	switch {
	case n.cfg.Reachability == "public":
		opts = append(opts, libp2p.ForceReachabilityPublic())
	case n.cfg.Reachability == "private", len(n.cfg.Listen) == 0 && len(n.cfg.Relays) > 0:
		opts = append(opts, libp2p.ForceReachabilityPrivate())
	}
	if n.cfg.RelayService {
		opts = append(opts, libp2p.EnableRelayService(relay.WithResources(n.relayResources())))
		if n.cfg.Reachability == "auto" {
			// A relay serves only once it believes itself reachable. Its operator
			// said so by making it one; a private network has nobody to ask.
			opts = append(opts, libp2p.ForceReachabilityPublic())
		}
	}
	return opts
}

// resources bounds what all peers together, and each of them, may take: libp2p's
// limits, scaled to this machine's memory, with room per peer for the many short
// streams of Perigee's protocols.
func (n *Network) resources() (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	peerStreams := max(1024, 4*n.cfg.MaxStreams)
	limits.PeerBaseLimit.StreamsInbound = peerStreams
	limits.PeerBaseLimit.StreamsOutbound = 4 * peerStreams
	limits.PeerBaseLimit.Streams = 5 * peerStreams
	limits.PeerBaseLimit.Memory = max(limits.PeerBaseLimit.Memory, 256<<20)
	limits.ProtocolPeerBaseLimit.StreamsInbound = peerStreams
	limits.ProtocolPeerBaseLimit.StreamsOutbound = 4 * peerStreams
	limits.ProtocolPeerBaseLimit.Streams = 5 * peerStreams
	limits.ProtocolPeerBaseLimit.Memory = max(limits.ProtocolPeerBaseLimit.Memory, 256<<20)
	for _, l := range []*rcmgr.BaseLimit{&limits.SystemBaseLimit, &limits.ProtocolBaseLimit} {
		l.StreamsInbound = max(l.StreamsInbound, 8*peerStreams)
		l.StreamsOutbound = max(l.StreamsOutbound, 16*peerStreams)
		l.Streams = max(l.Streams, 16*peerStreams)
		l.Memory = max(l.Memory, 512<<20)
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.AutoScale()),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: 64}}, // nodes behind one router
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: 64}, {PrefixLength: 48, ConnCount: 512}}))
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	return m, nil
}
