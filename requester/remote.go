package requester

import (
	"context"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/p2p"
)

// Network is what talking to far providers needs; *p2p.Network is one.
type Network interface {
	Call(ctx context.Context, peer perigee.PeerID, protocol string, req, resp any) error
	Open(ctx context.Context, peer perigee.PeerID, protocol string) (*p2p.Stream, error)
}

// eventSilence is how long a watch may be silent before its provider counts as
// gone: providers show life every two seconds.
const eventSilence = 7 * time.Second

// Remote returns the provider that is the given peer on net.
func Remote(net Network, peer perigee.PeerID) Provider { return remote{net, peer} }

type remote struct {
	net  Network
	peer perigee.PeerID
}

func (r remote) Bid(ctx context.Context, req *perigee.BidRequest) (*perigee.Bid, error) {
	bid := new(perigee.Bid)
	return bid, r.net.Call(ctx, r.peer, perigee.ProtocolBid, req, bid)
}

func (r remote) Lease(ctx context.Context, l *perigee.Lease) (*perigee.LeaseAnswer, error) {
	a := new(perigee.LeaseAnswer)
	return a, r.net.Call(ctx, r.peer, perigee.ProtocolLease, l, a)
}

func (r remote) Cancel(ctx context.Context, req *perigee.CancelRequest) (*perigee.CancelAnswer, error) {
	a := new(perigee.CancelAnswer)
	return a, r.net.Call(ctx, r.peer, perigee.ProtocolCancel, req, a)
}

func (r remote) Watch(ctx context.Context, req *perigee.WatchRequest, fn func(*perigee.Event) error) error {
	ctx, cancel := context.WithCancel(ctx) // of the stream's whole life
	defer cancel()
	late := time.AfterFunc(eventSilence, cancel)
	s, err := r.net.Open(ctx, r.peer, perigee.ProtocolWatch)
	if !late.Stop() || err != nil {
		return perigee.E("requester.Watch", perigee.Unavailable, err, "provider %s does not answer", r.peer)
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	if err := s.Send(req); err != nil {
		return err
	}
	for {
		_ = s.SetDeadline(time.Now().Add(eventSilence))
		ev := new(perigee.Event)
		if err := s.Receive(ev); err != nil {
			return perigee.E("requester.Watch", perigee.Unavailable, err, "the watch at provider %s broke", r.peer)
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
}
