package requester

import (
	"sort"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
)

// maxOffers bounds the book; beyond it the offer that expires first makes room.
const maxOffers = 10_000

// maxOfferAhead bounds how far in the future an offer may claim to expire.
const maxOfferAhead = time.Hour

// Offers is the book of providers' newest offers. It is safe for concurrent use.
type Offers struct {
	mu sync.Mutex
	m  map[perigee.PeerID]*perigee.Offer
}

// NewOffers returns an empty book.
func NewOffers() *Offers {
	return &Offers{m: map[perigee.PeerID]*perigee.Offer{}}
}

// Put checks an offer and takes it if it is newer than the one held. It reports
// whether it was news. Errors are of kind Corrupt or Invalid.
func (o *Offers) Put(offer *perigee.Offer) (bool, error) {
	const op = "requester.Offers"
	now := time.Now()
	switch {
	case offer.Expires <= now.UnixMilli():
		return false, nil
	case offer.Expires > now.Add(maxOfferAhead).UnixMilli():
		return false, perigee.E(op, perigee.Invalid, "offer of %s expires more than %s from now", offer.Provider, maxOfferAhead)
	case len(offer.Addrs) > 64 || len(offer.Labels) > 64 || len(offer.Engines) > 16 || len(offer.Region) > 64:
		return false, perigee.E(op, perigee.Invalid, "offer of %s has too many addresses, labels or engines", offer.Provider)
	case offer.CPU < 0 || offer.Memory < 0 || offer.Disk < 0 || offer.Price < 0:
		return false, perigee.E(op, perigee.Invalid, "offer of %s has negative resources or price", offer.Provider)
	}
	o.mu.Lock()
	old := o.m[offer.Provider]
	o.mu.Unlock()
	if old != nil && old.Sequence >= offer.Sequence {
		return false, nil
	}
	if err := perigee.CheckSignature(offer); err != nil {
		return false, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.m[offer.Provider]; old != nil && old.Sequence >= offer.Sequence {
		return false, nil
	}
	if len(o.m) >= maxOffers && o.m[offer.Provider] == nil {
		o.evict()
	}
	o.m[offer.Provider] = offer
	return true, nil
}

// evict drops the offer that expires first; mu is held.
func (o *Offers) evict() {
	var first perigee.PeerID
	for id, x := range o.m {
		if first == "" || x.Expires < o.m[first].Expires {
			first = id
		}
	}
	delete(o.m, first)
}

// Get returns a provider's standing offer, or an error of kind NotFound.
func (o *Offers) Get(id perigee.PeerID) (*perigee.Offer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.m[id]
	if x == nil || x.Expires <= time.Now().UnixMilli() {
		return nil, perigee.E("requester.Offers", perigee.NotFound, "no standing offer of provider %q is known; `perigee provider list` shows those there are", id)
	}
	return x, nil
}

// All returns every standing offer, sorted by provider. The offers are shared:
// do not change them.
func (o *Offers) All() []*perigee.Offer {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now().UnixMilli()
	list := make([]*perigee.Offer, 0, len(o.m))
	for id, x := range o.m {
		if x.Expires <= now {
			delete(o.m, id)
			continue
		}
		list = append(list, x)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Provider < list[j].Provider })
	return list
}
