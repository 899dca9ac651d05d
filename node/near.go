package node

import (
	"context"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/provider"
)

// near is this node's own provider as its requester talks to it.
type near struct {
	p    *provider.Provider
	self perigee.PeerID
}

func (n near) Bid(ctx context.Context, req *perigee.BidRequest) (*perigee.Bid, error) {
	return n.p.Bid(ctx, n.self, req)
}

func (n near) Lease(ctx context.Context, l *perigee.Lease) (*perigee.LeaseAnswer, error) {
	return n.p.Accept(ctx, n.self, l), nil
}

func (n near) Watch(ctx context.Context, req *perigee.WatchRequest, fn func(*perigee.Event) error) error {
	return n.p.Watch(ctx, n.self, req, fn)
}

func (n near) Cancel(ctx context.Context, req *perigee.CancelRequest) (*perigee.CancelAnswer, error) {
	return n.p.Cancel(ctx, n.self, req), nil
}
