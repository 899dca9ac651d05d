package p2p

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/perigee-network/perigee"
)

// dhtPrefix separates Perigee's DHT from every other: its protocol is
// /perigee/kad/1.0.0.
const dhtPrefix = "/perigee"

// rendezvous is the key under which nodes announce themselves in Perigee's DHT,
// so that each finds some others even when it began with a single address.
var rendezvous = perigee.SumCID(perigee.CodecRaw, []byte("perigee/nodes/1"))

const (
	enoughPeers    = 12 // connected nodes above which no more are looked for
	searchPause    = 30 * time.Second
	announcePause  = 4 * time.Hour
	refreshPause   = 5 * time.Second // between refreshes of the routing table
	connectTimeout = 15 * time.Second
)

// newRouting makes the DHTs. The host being built asks it for peers' addresses.
func (n *Network) newRouting(h host.Host) (routing.PeerRouting, error) {
	var err error
	if n.cfg.DHT != "off" {
		mode := map[string]dht.ModeOpt{
			// Until reachability is known, as for ever on a network of one machine
			// or one site, a node serves: any address is good there, private and
			// loopback ones too, so none are filtered.
			"auto":   dht.ModeAutoServer,
			"server": dht.ModeServer,
			"client": dht.ModeClient,
		}[n.cfg.DHT]
		n.dht, err = dht.New(h, dht.ProtocolPrefix(dhtPrefix), dht.Mode(mode), dht.DisableValues())
		if err != nil {
			return nil, err
		}
	}
	if n.cfg.PublicDHT {
		n.public, err = dht.New(h, dht.Mode(dht.ModeClient),
			dht.QueryFilter(dht.PublicQueryFilter), dht.RoutingTableFilter(dht.PublicRoutingTableFilter),
			dht.BootstrapPeers(dht.GetDefaultBootstrapPeerAddrInfos()...))
		if err != nil {
			return nil, err
		}
	}
	return peerRouting{n}, nil
}

// routers returns the DHTs that are on, Perigee's own first.
func (n *Network) routers() []*dht.IpfsDHT {
	var out []*dht.IpfsDHT
	for _, d := range []*dht.IpfsDHT{n.dht, n.public} {
		if d != nil {
			out = append(out, d)
		}
	}
	return out
}

// peerRouting asks one DHT after the other.
type peerRouting struct{ n *Network }

func (r peerRouting) FindPeer(ctx context.Context, p peer.ID) (peer.AddrInfo, error) {
	err := routing.ErrNotFound
	for _, d := range r.n.routers() {
		var info peer.AddrInfo
		if info, err = d.FindPeer(ctx, p); err == nil && len(info.Addrs) > 0 {
			return info, nil
		}
	}
	if err == nil {
		err = routing.ErrNotFound
	}
	return peer.AddrInfo{}, err
}

// contentRouting is the DHTs as one.
type contentRouting struct{ n *Network }

var _ routing.ContentRouting = contentRouting{}

// Routing returns the network's content routing for libraries that want it in
// libp2p's terms. Without a DHT it finds nothing.
func (n *Network) Routing() routing.ContentRouting { return contentRouting{n} }

func (r contentRouting) Provide(ctx context.Context, c cid.Cid, announce bool) error {
	routers := r.n.routers()
	errs := make([]error, len(routers))
	var wg sync.WaitGroup
	for i, d := range routers {
		wg.Go(func() { errs[i] = d.Provide(ctx, c, announce) })
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil { // one of them is enough
			return nil
		}
	}
	return errors.Join(errs...)
}

func (r contentRouting) FindProvidersAsync(ctx context.Context, c cid.Cid, count int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	var wg sync.WaitGroup
	for _, d := range r.n.routers() {
		wg.Go(func() {
			for info := range d.FindProvidersAsync(ctx, c, count) {
				select {
				case out <- info:
				case <-ctx.Done():
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(out)
	}()
	return out
}

// Provide announces that this node holds c, to the DHT nodes nearest to it. The
// announcement lasts about two days. With no DHT, or nobody else in it, the
// error is of kind Unavailable; this node still answers for c when asked itself.
func (n *Network) Provide(ctx context.Context, c perigee.CID) error {
	const op = "p2p.Provide"
	if !c.Defined() {
		return perigee.E(op, perigee.Invalid, "no CID to announce")
	}
	if len(n.routers()) == 0 {
		return perigee.E(op, perigee.Unavailable, "the DHT is off on this node")
	}
	if err := n.Routing().Provide(ctx, c.Cid(), true); err != nil {
		if ctx.Err() != nil {
			return perigee.E(op, perigee.KindOf(ctx.Err()), err, "announcing %s", c)
		}
		return perigee.E(op, perigee.Unavailable, err, "cannot announce %s", c)
	}
	return nil
}

// FindHolders asks the DHT who holds c and returns at most max other nodes (0:
// 20), with their addresses remembered for Open. It returns what it has when
// ctx ends; nobody found is no error.
func (n *Network) FindHolders(ctx context.Context, c perigee.CID, max int) ([]perigee.PeerID, error) {
	if !c.Defined() {
		return nil, perigee.E("p2p.FindHolders", perigee.Invalid, "no CID to look for")
	}
	if max <= 0 {
		max = 20
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := map[peer.ID]bool{n.self: true}
	var out []perigee.PeerID
	for info := range n.Routing().FindProvidersAsync(ctx, c.Cid(), max+1) {
		if seen[info.ID] {
			continue
		}
		seen[info.ID] = true
		n.host.Peerstore().AddAddrs(info.ID, info.Addrs, offeredAddrTTL)
		if out = append(out, asPeerID(info.ID)); len(out) == max {
			break
		}
	}
	return out, nil
}

// startRouting keeps the DHT's routing table filled and the node connected to
// some others.
func (n *Network) startRouting() {
	for _, d := range n.routers() {
		if err := d.Bootstrap(n.ctx); err != nil {
			n.log.Warn("the DHT did not start its upkeep", "error", err)
		}
	}
	if n.public != nil {
		n.task(n.joinPublic)
	}
	if n.dht == nil {
		return
	}
	news := make(chan struct{}, 1)
	n.OnPeer(func(perigee.PeerID) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	n.task(func(ctx context.Context) { n.meet(ctx, news) })
}

// meet refreshes the routing table when nodes appear, announces this one, and
// connects to further nodes while there are few.
func (n *Network) meet(ctx context.Context, news <-chan struct{}) {
	var announced time.Time
	tick := time.NewTicker(searchPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
			sleep(ctx, time.Second) // several often come together
			if ctx.Err() != nil {
				return
			}
			n.dht.RefreshRoutingTable()
			sleep(ctx, refreshPause)
		case <-tick.C:
		}
		if n.dht.RoutingTable().Size() == 0 {
			continue
		}
		if time.Since(announced) > announcePause {
			c, cancel := context.WithTimeout(ctx, time.Minute)
			if n.dht.Provide(c, rendezvous.Cid(), true) == nil {
				announced = time.Now()
			}
			cancel()
		}
		if n.nodeCount() < enoughPeers {
			n.findNodes(ctx)
		}
	}
}

// findNodes connects to some nodes that announced themselves.
func (n *Network) findNodes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	found, err := n.FindHolders(ctx, rendezvous, 4*enoughPeers)
	if err != nil {
		return
	}
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	var wg sync.WaitGroup
	for _, id := range found[:min(len(found), enoughPeers)] {
		p, err := decodePeer("p2p.meet", id)
		if err != nil || n.host.Network().Connectedness(p) != network.NotConnected {
			continue
		}
		wg.Go(func() {
			c, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, "meet"), connectTimeout)
			defer cancel()
			_ = n.host.Connect(c, peer.AddrInfo{ID: p})
		})
	}
	wg.Wait()
}

// joinPublic connects to the public DHT's well-known nodes; the DHT's own
// upkeep takes over from there.
func (n *Network) joinPublic(ctx context.Context) {
	for _, info := range dht.GetDefaultBootstrapPeerAddrInfos() {
		c, cancel := context.WithTimeout(ctx, connectTimeout)
		if err := n.host.Connect(c, info); err != nil {
			n.log.Debug("a node of the public DHT does not answer", "peer", info.ID, "error", err)
		}
		cancel()
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
