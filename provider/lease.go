package provider

import (
	"context"
	"errors"
	"runtime"
	"sort"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
	"github.com/perigee-network/perigee/wasm"
)

// Bid answers a requester that asks about parts: what the provider holds of
// each, what it charges, and when it could start; or a signed refusal.
func (p *Provider) Bid(ctx context.Context, from perigee.PeerID, req *perigee.BidRequest) (*perigee.Bid, error) {
	bid := &perigee.Bid{
		Provider: p.cfg.Peer, Account: p.cfg.Account, Requester: from, Job: req.Job,
		Region: p.cfg.Region, Class: wasm.Class(), Price: p.cfg.Price,
		Expires: time.Now().Add(bidValidity).UnixMilli(),
	}
	if err := p.fits(req.Engine, req.Limits, req.CPU); err != nil {
		bid.Refusal = perigee.FaultOf(err)
		return bid, perigee.Sign(bid, p.cfg.Sign)
	}
	bid.Slots, bid.Wait = p.capacity(req.Limits.Memory, req.CPU)
	for _, ask := range req.Parts {
		var local int64
		for _, in := range ask.Inputs {
			n, err := p.cfg.Data.LocalBytes(ctx, in)
			if err != nil {
				return nil, err
			}
			local += n
		}
		if local > 0 {
			bid.Local = append(bid.Local, perigee.PartLocal{Index: ask.Index, Bytes: local})
		}
	}
	return bid, perigee.Sign(bid, p.cfg.Sign)
}

// fits says why an execution can never run here, or nil.
func (p *Provider) fits(engine string, l perigee.Limits, cpu int) error {
	const op = "provider.Bid"
	r := p.cfg.Resources
	switch {
	case engine != wasm.Version:
		return perigee.E(op, perigee.Unsupported, "engine %q is wanted, this provider runs %q", engine, wasm.Version)
	case cpu > r.CPU:
		return perigee.E(op, perigee.Refused, "resources.cpu: %d cores are wanted, this provider gives %d", cpu, r.CPU)
	case l.Memory > r.Memory:
		return perigee.E(op, perigee.Refused, "resources.memory: %s are wanted, this provider gives %s", perigee.Size(l.Memory), perigee.Size(r.Memory))
	case l.Disk > r.Disk:
		return perigee.E(op, perigee.Refused, "resources.disk: %s are wanted, this provider gives %s", perigee.Size(l.Disk), perigee.Size(r.Disk))
	}
	return nil
}

// capacity returns how many executions of a size could run at once and after
// how many milliseconds the first may start, judged by the present queue.
func (p *Provider) capacity(memory int64, cpu int) (slots int, wait int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cpu = max(cpu, 1)
	slots = p.cfg.Resources.CPU / cpu
	if memory > 0 {
		slots = min(slots, int(p.cfg.Resources.Memory/memory))
	}
	busy := len(p.active)
	if busy >= slots && slots > 0 {
		wait = int64(busy/slots) * max(p.mean.Milliseconds(), 1)
	}
	return slots, wait
}

// Accept takes a lease: it checks it, writes it and queues its executions. The
// answer is the provider's signature over the lease, or a refusal. Accepting
// the same lease again gives the same answer and queues nothing twice.
func (p *Provider) Accept(ctx context.Context, from perigee.PeerID, lease *perigee.Lease) *perigee.LeaseAnswer {
	sig, err := p.accept(from, lease)
	if err != nil {
		return &perigee.LeaseAnswer{Refusal: perigee.FaultOf(err)}
	}
	return &perigee.LeaseAnswer{Signature: sig}
}

func (p *Provider) accept(from perigee.PeerID, lease *perigee.Lease) ([]byte, error) {
	if err := p.checkLease(from, lease); err != nil {
		return nil, err
	}
	msg, err := perigee.SignedBytes(lease)
	if err != nil {
		return nil, err
	}
	if _, err := p.loadLease(from, lease.ID); err == nil {
		return p.cfg.Sign(msg), nil
	} else if !errors.Is(err, perigee.NotFound) {
		return nil, err
	}
	batch := new(db.Batch)
	head := *lease
	head.Executions = nil
	if err := batch.PutValue(leaseKey(from, lease.ID), &leaseRecord{head}); err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	batch.Put(expiryKey(now+leaseKept.Milliseconds(), leaseKey(from, lease.ID)), nil)
	fresh := make([]*execution, 0, len(lease.Executions))
	for i := range lease.Executions {
		e := &lease.Executions[i]
		r := &record{ID: e.ID, Requester: from, Job: lease.Job, Lease: lease.ID,
			State: perigee.ExecLeased, Part: e.Part, Accepted: now}
		if _, err := p.load(r.key()); err == nil {
			return nil, perigee.E("provider.Accept", perigee.Invalid, "execution %q was leased before under another lease", e.ID)
		}
		if err := batch.PutValue(r.key().db(), r); err != nil {
			return nil, err
		}
		batch.Put(r.jobKey(), nil)
		batch.Put(r.key().open(), nil)
		fresh = append(fresh, newExecution(r))
	}
	p.mu.Lock()
	if len(p.queue)+len(fresh) > maxQueued {
		p.mu.Unlock()
		return nil, perigee.E("provider.Accept", perigee.Busy, "%d executions wait here already; retry in a while", maxQueued)
	}
	p.mu.Unlock()
	if err := p.cfg.DB.Write(batch); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range fresh {
		p.active[x.key] = x
		p.queue = append(p.queue, x)
	}
	p.dispatch()
	return p.cfg.Sign(msg), nil
}

// checkLease says whether a lease is one that this provider may accept.
func (p *Provider) checkLease(from perigee.PeerID, l *perigee.Lease) error {
	const op = "provider.Accept"
	switch {
	case l.Provider != p.cfg.Peer:
		return perigee.E(op, perigee.Invalid, "the lease names provider %s, this is %s", l.Provider, p.cfg.Peer)
	case l.Requester != from:
		return perigee.E(op, perigee.Refused, "the lease names requester %s but %s sent it", l.Requester, from)
	case len(l.Executions) == 0 || len(l.Executions) > 1<<14:
		return perigee.E(op, perigee.Invalid, "a lease orders 1 to %d executions, not %d", 1<<14, len(l.Executions))
	case l.Price != p.cfg.Price:
		return perigee.E(op, perigee.Refused, "the lease's price %s per execution is not this provider's %s", l.Price, p.cfg.Price)
	case l.Timeout <= 0 || l.Retention < 0:
		return perigee.E(op, perigee.Invalid, "the lease has no timeout or a negative retention")
	case !validID(l.ID) || !validID(l.Job):
		return perigee.E(op, perigee.Invalid, "lease and job IDs have 1 to 128 letters, digits, '-', '_' or '.'")
	}
	if err := perigee.CheckSignature(l); err != nil {
		return err
	}
	seen := make(map[string]bool, len(l.Executions))
	for i := range l.Executions {
		e := &l.Executions[i]
		if !validID(e.ID) || seen[e.ID] {
			return perigee.E(op, perigee.Invalid, "execution ID %q is malformed or repeated", e.ID)
		}
		seen[e.ID] = true
		if err := e.Part.Validate(); err != nil {
			return perigee.E(op, perigee.Invalid, err, "execution %q", e.ID)
		}
		if err := p.fits(e.Part.Engine, e.Part.Limits, l.CPU); err != nil {
			return err
		}
	}
	return nil
}

// validID bounds the IDs that requesters choose, since they become keys.
func validID(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// Cancel withdraws executions of a requester's job, all of them when none is
// named. With release it also lets go of finished results.
func (p *Provider) Cancel(ctx context.Context, from perigee.PeerID, req *perigee.CancelRequest) *perigee.CancelAnswer {
	ids := req.Executions
	if len(ids) == 0 {
		prefix := []byte(jobPrefix + string(from) + "/" + req.Job + "/")
		err := p.cfg.DB.Scan(prefix, nil, func(k, _ []byte) error {
			ids = append(ids, string(k[len(prefix):]))
			return nil
		})
		if err != nil {
			return &perigee.CancelAnswer{Fault: perigee.FaultOf(err)}
		}
	}
	n := 0
	for _, id := range ids {
		done, err := p.cancelOne(execKey{from, id}, req.Job, req.Release)
		if err != nil {
			return &perigee.CancelAnswer{Count: n, Fault: perigee.FaultOf(err)}
		}
		if done {
			n++
		}
	}
	return &perigee.CancelAnswer{Count: n}
}

func (p *Provider) cancelOne(k execKey, job string, release bool) (bool, error) {
	p.mu.Lock()
	x := p.active[k]
	if x != nil && x.job == job {
		x.cancelled = true
		if x.stop != nil {
			x.stop() // its goroutine records the cancellation
			p.mu.Unlock()
			return true, nil
		}
		p.unqueue(x)
		delete(p.active, k)
		p.mu.Unlock()
		r, err := p.load(k)
		if err != nil {
			return false, err
		}
		return true, p.finish(r, perigee.ExecCancelled, perigee.E("provider.Cancel", perigee.Cancelled, "withdrawn by the requester"))
	}
	p.mu.Unlock()
	r, err := p.load(k)
	if errors.Is(err, perigee.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if r.Job == job && r.State.Final() && release {
		return true, p.release(r)
	}
	return false, nil
}

func (p *Provider) unqueue(x *execution) {
	for i, y := range p.queue {
		if x == y {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			return
		}
	}
}

func sortByAcceptance(q []*execution) {
	sort.Slice(q, func(i, j int) bool {
		if q[i].accepted != q[j].accepted {
			return q[i].accepted < q[j].accepted
		}
		return q[i].key.id < q[j].key.id
	})
}

// DefaultResources are this machine's cores, half its memory when it can be
// told, and 20 GiB of disk.
func DefaultResources(memory int64) Resources {
	if memory <= 0 {
		memory = 4 << 30
	}
	return Resources{CPU: runtime.NumCPU(), Memory: memory / 2, Disk: 20 << 30}
}
