package requester

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"sort"
	"time"

	"github.com/perigee-network/perigee"
)

// send orders executions under one lease. It returns at once.
func (u *run) send(f *feed, execs []*exec) {
	u.r.wg.Add(1)
	go func() {
		defer u.r.wg.Done()
		epoch, err := f.open(u.ctx)
		if err == nil {
			err = u.deliver(f, execs)
		}
		u.post(func() {
			if err != nil {
				u.refused(f.id, execs, err, perigee.KindOf(err) != perigee.Busy)
				return
			}
			for _, e := range execs {
				e.confirmed = true
			}
			u.after = append(u.after, func() { f.cover(epoch) })
		})
	}()
}

// deliver signs and sends a lease and checks the answer.
func (u *run) deliver(f *feed, execs []*exec) error {
	lease, err := u.leaseFor(f.id, execs)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(u.ctx, 2*u.r.cfg.LossTimeout)
	defer cancel()
	answer, err := f.provider.Lease(ctx, lease)
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
	pub, err := f.id.PublicKey()
	if err != nil {
		return err
	}
	if !ed25519.Verify(pub, msg, answer.Signature) {
		return perigee.E("requester.Lease", perigee.Corrupt, "provider %s answered the lease with a signature that is not its own", f.id)
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
func (u *run) refused(id perigee.PeerID, execs []*exec, err error, counts bool) {
	for _, e := range execs {
		if e.State.Final() {
			continue
		}
		u.fail(e, perigee.ExecLost, perigee.FaultOf(err))
		if !counts {
			delete(e.part.tried, id)
		}
	}
	if !counts {
		u.placeAt = time.Now().Add(200 * time.Millisecond)
	}
	u.unplan(id)
}
