package provider

import (
	"context"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/p2p"
)

// Network is where the provider's protocols are registered; *p2p.Network is one.
type Network interface {
	Handle(protocol string, fn func(ctx context.Context, s *p2p.Stream))
}

// Serve answers the bid, lease, watch and cancel protocols on net. A stream's
// peer is authenticated by p2p, so "from" is who signed the handshake.
func (p *Provider) Serve(net Network) {
	answer(net, perigee.ProtocolBid, func(ctx context.Context, from perigee.PeerID, req *perigee.BidRequest) (*perigee.Bid, error) {
		return p.Bid(ctx, from, req)
	})
	answer(net, perigee.ProtocolLease, func(ctx context.Context, from perigee.PeerID, req *perigee.Lease) (*perigee.LeaseAnswer, error) {
		return p.Accept(ctx, from, req), nil
	})
	answer(net, perigee.ProtocolCancel, func(ctx context.Context, from perigee.PeerID, req *perigee.CancelRequest) (*perigee.CancelAnswer, error) {
		return p.Cancel(ctx, from, req), nil
	})
	net.Handle(perigee.ProtocolWatch, func(ctx context.Context, s *p2p.Stream) {
		var req perigee.WatchRequest
		if err := s.Receive(&req); err != nil {
			s.Reset()
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // the requester sends nothing more: a read ends when it goes away
			var nothing [1]byte
			_, _ = s.Read(nothing[:])
			cancel()
		}()
		if err := p.Watch(ctx, s.Peer(), &req, func(ev *perigee.Event) error { return s.Send(ev) }); err != nil {
			s.Reset()
			return
		}
		s.Close()
	})
}

// answer registers a protocol of one request and one answer. A request that
// cannot be read or answered resets the stream.
func answer[Req, Resp any](net Network, protocol string, fn func(ctx context.Context, from perigee.PeerID, req *Req) (*Resp, error)) {
	net.Handle(protocol, func(ctx context.Context, s *p2p.Stream) {
		req := new(Req)
		if err := s.Receive(req); err != nil {
			s.Reset()
			return
		}
		resp, err := fn(ctx, s.Peer(), req)
		if err != nil || s.Send(resp) != nil {
			s.Reset()
			return
		}
		s.Close()
	})
}
