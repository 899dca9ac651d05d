package node

import (
	"context"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/p2p"
	"github.com/perigee-network/perigee/provider"
)

// How offers travel: gossip tells everyone who listens, and two nodes that meet
// exchange what they know, since gossip alone misses newcomers.
const (
	offersTopic    = "perigee/offers/1"
	offersProtocol = "/perigee/offers/1"
	offersAnswer   = 1024 // offers in one answer
	offersEvery    = provider.OfferValidity / 5
)

// offersRequest asks a peer for the offers it knows, and tells it one's own.
type offersRequest struct {
	Own *perigee.Offer `cbor:"own"` // null: the asking node provides nothing
}

// offersReply are standing offers.
type offersReply struct {
	Offers []*perigee.Offer `cbor:"offers"`
}

// startOffers joins the gossip of offers and keeps the node's own known.
func (n *Node) startOffers() error {
	n.net.Handle(offersProtocol, func(ctx context.Context, s *p2p.Stream) {
		var req offersRequest
		if err := s.Receive(&req); err != nil {
			s.Reset()
			return
		}
		if req.Own != nil && req.Own.Provider == s.Peer() {
			n.learn(req.Own)
		}
		all := n.offers.All()
		if err := s.Send(&offersReply{Offers: all[:min(len(all), offersAnswer)]}); err != nil {
			s.Reset()
			return
		}
		_ = s.Close()
	})
	topic, err := n.net.Join(offersTopic, func(from perigee.PeerID, b []byte) error {
		o := new(perigee.Offer)
		if err := perigee.Decode(b, o); err != nil {
			return err
		}
		return perigee.CheckSignature(o)
	}, func(from perigee.PeerID, b []byte) {
		o := new(perigee.Offer)
		if perigee.Decode(b, o) == nil {
			n.learn(o)
		}
	})
	if err != nil {
		return err
	}
	n.net.OnPeer(func(id perigee.PeerID) { n.meet(id) })
	if n.provider == nil {
		return nil
	}
	own, err := n.renewOffer()
	if err != nil {
		return err
	}
	n.tell(topic, own)
	n.tasks.Go(func() {
		tick := time.NewTicker(offersEvery)
		defer tick.Stop()
		for {
			select {
			case <-n.ctx.Done():
				return
			case <-tick.C:
				if own, err := n.renewOffer(); err == nil {
					n.tell(topic, own)
				}
			}
		}
	})
	return nil
}

// renewOffer makes the node's offer anew and enters it into its own book.
func (n *Node) renewOffer() (*perigee.Offer, error) {
	o, err := n.provider.Offer(n.net.Addrs(), perigee.Version)
	if err != nil {
		return nil, err
	}
	_, err = n.offers.Put(o)
	return o, err
}

func (n *Node) tell(topic *p2p.Topic, o *perigee.Offer) {
	b, err := perigee.Encode(o)
	if err == nil {
		err = topic.Publish(n.ctx, b)
	}
	if err != nil && n.ctx.Err() == nil {
		n.log.Debug("publishing the offer", "err", err)
	}
}

// learn enters a peer's offer and where that peer may be reached.
func (n *Node) learn(o *perigee.Offer) {
	news, err := n.offers.Put(o)
	if err != nil {
		n.log.Debug("an offer is no good", "provider", o.Provider, "err", err)
		return
	}
	if news {
		n.net.AddAddrs(o.Provider, o.Addrs)
	}
}

// meet exchanges offers with a peer that has connected.
func (n *Node) meet(id perigee.PeerID) {
	n.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, 10*time.Second)
		defer cancel()
		req := &offersRequest{}
		if n.provider != nil {
			own, err := n.renewOffer()
			if err != nil {
				n.log.Warn("making the offer", "err", err)
				return
			}
			req.Own = own
		}
		var reply offersReply
		// A peer that starts may be connected before it answers this protocol.
		for wait := 100 * time.Millisecond; ; wait *= 2 {
			err := n.net.Call(ctx, id, offersProtocol, req, &reply)
			if err == nil {
				break
			}
			n.log.Debug("exchanging offers", "peer", id, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		for _, o := range reply.Offers[:min(len(reply.Offers), offersAnswer)] {
			if o != nil && o.Provider != n.keys.node.Peer() {
				n.learn(o)
			}
		}
	})
}
