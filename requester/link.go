package requester

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
)

// link is a run's open watch at one provider, reopened when it breaks.
type link struct {
	u        *run
	id       perigee.PeerID
	provider Provider

	mu     sync.Mutex
	ready  chan struct{} // closed once the present watch is heard of
	epoch  int           // counts watches
	reopen context.CancelFunc
}

// linkTo returns the run's link to a provider, opening it if need be; u.mu is held.
func (u *run) linkTo(id perigee.PeerID) *link {
	if l := u.links[id]; l != nil {
		return l
	}
	l := &link{u: u, id: id, provider: u.r.cfg.Dial(id), ready: make(chan struct{})}
	u.links[id] = l
	u.r.wg.Add(1)
	go func() {
		defer u.r.wg.Done()
		l.follow()
	}()
	return l
}

// follow keeps a watch open as long as the run lasts. When the provider stays
// out of reach for LossTimeout, all it holds is lost.
func (l *link) follow() {
	u := l.u
	lastHeard := time.Now()
	backoff := 50 * time.Millisecond
	for u.ctx.Err() == nil {
		ids, any := l.confirmed()
		if !any {
			// Nothing runs there: no reason to hold on to a provider that went away.
			lastHeard = time.Now()
		}
		ctx, cancel := context.WithCancel(u.ctx)
		l.mu.Lock()
		l.reopen = cancel
		l.mu.Unlock()
		err := l.provider.Watch(ctx, &perigee.WatchRequest{Job: u.rec.ID, Executions: ids}, func(ev *perigee.Event) error {
			lastHeard, backoff = time.Now(), 50*time.Millisecond
			l.heard(ev)
			return ctx.Err()
		})
		forced := ctx.Err() != nil
		cancel()
		if u.ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		select {
		case <-l.ready:
			l.ready = make(chan struct{})
		default:
		}
		l.epoch++
		l.mu.Unlock()
		if forced {
			continue
		}
		if time.Since(lastHeard) > u.r.cfg.LossTimeout {
			u.post(func() { l.lost(err) })
			lastHeard = time.Now()
		}
		select {
		case <-u.ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, time.Second)
	}
}

// confirmed returns the executions that the provider must know of, and whether
// any execution is there at all.
func (l *link) confirmed() (ids []string, any bool) {
	u := l.u
	u.mu.Lock()
	defer u.mu.Unlock()
	for e := range u.active {
		if e.Provider == l.id {
			any = true
			if e.confirmed {
				ids = append(ids, e.ID)
			}
		}
	}
	return ids, any
}

func (l *link) heard(ev *perigee.Event) {
	l.mu.Lock()
	select {
	case <-l.ready:
	default:
		close(l.ready)
	}
	l.mu.Unlock()
	switch ev.Kind {
	case perigee.EventState:
		if ev.State == perigee.ExecCompleted {
			rc, err := l.u.takeReceipt(l.id, ev)
			l.u.post(func() { l.u.onReceipt(l.id, ev, rc, err) })
			return
		}
		l.u.post(func() { l.u.onState(l.id, ev) })
	case perigee.EventLog:
		l.u.onLog(l.id, ev)
	}
}

// lost gives up everything that an unreachable provider holds; u.mu is held.
func (l *link) lost(err error) {
	u := l.u
	u.unplan(l.id)
	for e := range u.active {
		if e.Provider == l.id {
			u.fail(e, perigee.ExecLost, &perigee.Fault{Kind: perigee.Unavailable,
				Message: fmt.Sprintf("provider %s is out of reach: %v", l.id, err)})
		}
	}
}

// send orders executions under one lease. It returns at once.
func (l *link) send(execs []*exec) {
	u := l.u
	u.r.wg.Add(1)
	go func() {
		defer u.r.wg.Done()
		l.mu.Lock()
		ready := l.ready
		l.mu.Unlock()
		select {
		case <-ready:
		case <-time.After(u.r.cfg.LossTimeout):
			u.post(func() {
				l.refused(execs, perigee.E("requester.Lease", perigee.Unavailable, "provider %s is out of reach", l.id), true)
			})
			return
		case <-u.ctx.Done():
			return
		}
		l.mu.Lock()
		epoch := l.epoch
		l.mu.Unlock()
		err := l.order(execs)
		u.post(func() {
			if err != nil {
				l.refused(execs, err, perigee.KindOf(err) != perigee.Busy)
				return
			}
			for _, e := range execs {
				e.confirmed = true
			}
			l.mu.Lock()
			if l.epoch != epoch && l.reopen != nil {
				l.reopen() // the watch is younger than the lease and does not name it
			}
			l.mu.Unlock()
		})
	}()
}

// order signs and sends a lease and checks the answer.
func (l *link) order(execs []*exec) error {
	u := l.u
	lease, err := u.leaseFor(l.id, execs)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(u.ctx, 2*u.r.cfg.LossTimeout)
	defer cancel()
	answer, err := l.provider.Lease(ctx, lease)
	if err != nil {
		return err
	}
	if answer.Refusal != nil {
		return answer.Refusal.Err("requester.Lease")
	}
	msg, err := perigee.SignedBytes(lease)
	if err != nil {
		return err
	}
	pub, err := l.id.PublicKey()
	if err != nil {
		return err
	}
	if !ed25519.Verify(pub, msg, answer.Signature) {
		return perigee.E("requester.Lease", perigee.Corrupt, "provider %s answered the lease with a signature that is not its own", l.id)
	}
	return nil
}

// leaseFor makes the signed lease of executions, with hints of who holds what.
func (u *run) leaseFor(id perigee.PeerID, execs []*exec) (*perigee.Lease, error) {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:])
	lease := &perigee.Lease{
		ID: u.rec.ID + "-" + hex.EncodeToString(nonce[:]), Requester: u.r.cfg.Peer, Provider: id, Job: u.rec.ID,
		Created: time.Now().UnixMilli(), CPU: u.job.Resources.CPU,
		Timeout: u.job.Resources.Timeout.D().Milliseconds(), Retention: u.job.Retention.D().Milliseconds(),
		StreamLogs: u.job.StreamLogs && u.job.Verify.Mode == "none",
	}
	u.mu.Lock()
	known := map[perigee.CID]bool{}
	for _, e := range execs {
		lease.Price = e.Price
		p := e.part
		lease.Executions = append(lease.Executions, perigee.LeasedExecution{ID: e.ID, Part: p.Part})
		known[p.Part.Module] = true
		for _, in := range p.Part.Inputs {
			known[in.CID] = true
		}
	}
	for c := range known {
		peers := u.hints[c]
		if len(peers) == 0 {
			peers = []perigee.PeerID{u.r.cfg.Peer}
		}
		lease.Holders = append(lease.Holders, perigee.HolderHint{CID: c, Peers: peers})
	}
	u.mu.Unlock()
	sort.Slice(lease.Holders, func(i, j int) bool { return lease.Holders[i].CID.String() < lease.Holders[j].CID.String() })
	return lease, perigee.Sign(lease, u.r.cfg.Sign)
}

// refused ends executions whose lease was not taken; u.mu is held. A busy
// provider is asked again later, which is no attempt made.
func (l *link) refused(execs []*exec, err error, counts bool) {
	u := l.u
	for _, e := range execs {
		if e.State.Final() {
			continue
		}
		u.fail(e, perigee.ExecLost, perigee.FaultOf(err))
		if !counts {
			delete(e.part.tried, l.id)
		}
	}
	if !counts {
		u.placeAt = time.Now().Add(200 * time.Millisecond)
	}
	u.unplan(l.id)
}
