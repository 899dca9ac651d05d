package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// Reservations on the configured relays are Perigee's own task: libp2p's
// AutoRelay makes them too, but then advertises only relays with public
// addresses, and so none within a site or on one machine.

// relayResources are the limits under which this node relays for others.
func (n *Network) relayResources() relay.Resources {
	r := relay.DefaultResources()
	r.MaxReservations = 1024
	r.MaxReservationsPerIP = 256 // nodes behind one router
	r.MaxReservationsPerASN = 512
	r.MaxCircuits = 64
	r.BufferSize = 16 << 10
	bytes, seconds := n.cfg.RelayBytes, n.cfg.RelaySeconds
	private := n.cfg.PSK != nil
	if bytes == 0 && !private {
		bytes = 1 << 30
	}
	if seconds == 0 && !private {
		seconds = 3600
	}
	if bytes <= 0 && seconds <= 0 {
		r.Limit = nil
		return r
	}
	// libp2p has no "unlimited" for one of the two.
	r.Limit = &relay.RelayLimit{Data: 1 << 62, Duration: 100 * 24 * time.Hour}
	if bytes > 0 {
		r.Limit.Data = bytes
	}
	if seconds > 0 {
		r.Limit.Duration = time.Duration(seconds) * time.Second
	}
	return r
}

// withCircuits adds the addresses through relays to the host's own.
func (n *Network) withCircuits(addrs []ma.Multiaddr) []ma.Multiaddr {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.circuits {
		addrs = append(addrs, c...)
	}
	return addrs
}

// startRelays keeps a slot reserved at every configured relay, except while
// this node knows that it is reachable directly.
func (n *Network) startRelays() error {
	static, err := parsePeers("relay", n.cfg.Relays)
	if err != nil || len(static) == 0 {
		return err
	}
	for _, info := range static {
		if info.ID != n.self { // one list may serve all nodes of a network
			n.keepReserved(info)
		}
	}
	return nil
}

func (n *Network) keepReserved(info peer.AddrInfo) {
	lost := n.watchLoss(info.ID)
	n.host.ConnManager().Protect(info.ID, "relay")
	n.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	public, err := n.host.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		n.log.Warn("cannot follow this node's reachability", "error", err)
		return
	}
	n.task(func(ctx context.Context) {
		defer public.Close()
		const first, longest = 500 * time.Millisecond, time.Minute
		pause, needed := first, true
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-public.Out():
				if !ok {
					return
				}
				needed = e.(event.EvtLocalReachabilityChanged).Reachability != network.ReachabilityPublic
			case <-lost:
				n.setCircuits(info.ID, nil)
			case <-timer.C:
			}
			if !needed {
				n.setCircuits(info.ID, nil)
				continue
			}
			again, err := n.reserve(ctx, info)
			if err != nil {
				n.setCircuits(info.ID, nil)
				n.log.Debug("a relay gives no slot; trying again", "relay", info.ID, "error", err)
				again, pause = pause, min(2*pause, longest)
			} else {
				pause = first
			}
			timer.Reset(again)
		}
	})
}

// reserve takes or renews a slot at a relay and returns when to renew it.
func (n *Network) reserve(ctx context.Context, info peer.AddrInfo) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := n.connect(ctx, info); err != nil {
		return 0, n.dialError(ctx, "p2p.reserve", asPeerID(info.ID), err)
	}
	slot, err := client.Reserve(ctx, n.host, info)
	if err != nil {
		return 0, err
	}
	var circuits []ma.Multiaddr
	suffix, err := ma.NewMultiaddr("/p2p/" + info.ID.String() + "/p2p-circuit")
	if err != nil {
		return 0, err
	}
	for _, a := range info.Addrs {
		circuits = append(circuits, a.Encapsulate(suffix))
	}
	n.setCircuits(info.ID, circuits)
	return max(time.Until(slot.Expiration)*3/4, 10*time.Second), nil
}

func (n *Network) setCircuits(p peer.ID, circuits []ma.Multiaddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if circuits == nil {
		delete(n.circuits, p)
		return
	}
	n.circuits[p] = circuits
}
