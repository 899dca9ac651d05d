package api

import (
	"context"
	"net/http"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// routeNode serves what the node says of itself and of its peers.
func (s *Server) routeNode() {
	route(s, op("Status", http.MethodGet, "/v1/status", "node", "What this node is and does", ""),
		func(ctx context.Context, _ *none) (*body[client.Status], error) {
			return answer(s.cfg.Node.Status(ctx))
		})
	route(s, op("Peers", http.MethodGet, "/v1/peers", "node", "Connected peers", ""),
		func(ctx context.Context, _ *none) (*body[[]client.Peer], error) {
			return answer(s.cfg.Node.Peers(ctx))
		})
	type connect struct {
		Body struct {
			Addr string `json:"addr" minLength:"1" maxLength:"1024" doc:"multiaddr that ends in /p2p/ID"`
		}
	}
	route(s, op("Connect", http.MethodPost, "/v1/peers/connect", "node", "Connect to a peer", ""),
		func(ctx context.Context, in *connect) (*none, error) {
			return &none{}, s.cfg.Node.Connect(ctx, in.Body.Addr)
		})
}

// routeProviders serves offers.
func (s *Server) routeProviders() {
	type filter struct {
		Region string `query:"region" maxLength:"64" doc:"only offers from this region or below it, such as EU"`
	}
	route(s, op("Providers", http.MethodGet, "/v1/providers", "providers", "Offers known to this node", "Includes this node's own."),
		func(ctx context.Context, in *filter) (*body[[]perigee.Offer], error) {
			all, err := s.cfg.Providers.Offers(ctx)
			if err != nil {
				return nil, err
			}
			kept := make([]perigee.Offer, 0, len(all))
			for _, o := range all {
				if perigee.RegionWithin(o.Region, in.Region) {
					kept = append(kept, o)
				}
			}
			return &body[[]perigee.Offer]{kept}, nil
		})
	type named struct {
		ID string `path:"id" maxLength:"64" doc:"peer ID, or self for this node"`
	}
	route(s, op("Provider", http.MethodGet, "/v1/providers/{id}", "providers", "One provider's offer", ""),
		func(ctx context.Context, in *named) (*body[perigee.Offer], error) {
			if in.ID == "self" {
				return answer(s.cfg.Providers.OwnOffer(ctx))
			}
			if _, err := perigee.PeerID(in.ID).PublicKey(); err != nil {
				return nil, err
			}
			all, err := s.cfg.Providers.Offers(ctx)
			if err != nil {
				return nil, err
			}
			for i := range all {
				if all[i].Provider == perigee.PeerID(in.ID) {
					return &body[perigee.Offer]{all[i]}, nil
				}
			}
			return nil, perigee.E("api.Provider", perigee.NotFound, "no offer of provider %s is known here; perigee provider list shows those that are", in.ID)
		})
}
