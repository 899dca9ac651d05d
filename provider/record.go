package provider

import (
	"errors"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Keys in the database:
//
//	prov/l/<requester>/<lease>      leaseRecord
//	prov/x/<requester>/<execution>  record
//	prov/j/<requester>/<job>/<execution>  nothing: the executions of a job
const (
	leasePrefix = "prov/l/"
	execPrefix  = "prov/x/"
	jobPrefix   = "prov/j/"
)

// record is all that is durable of one execution.
type record struct {
	ID         string                 `cbor:"id"`
	Requester  perigee.PeerID         `cbor:"requester"`
	Job        string                 `cbor:"job"`
	Lease      string                 `cbor:"lease"`
	State      perigee.ExecutionState `cbor:"state"`
	Part       perigee.Part           `cbor:"part"`
	Fault      *perigee.Fault         `cbor:"fault"`
	Receipt    []byte                 `cbor:"receipt"`
	Output     perigee.CID            `cbor:"output"`
	OutputSize int64                  `cbor:"output_size"`
	Accepted   int64                  `cbor:"accepted"` // Unix milliseconds
	Expires    int64                  `cbor:"expires"`  // Unix milliseconds; 0 while not final
}

// leaseRecord is a lease without its executions, which have records of their own.
type leaseRecord struct {
	Lease perigee.Lease `cbor:"lease"`
}

func (k execKey) db() []byte { return []byte(execPrefix + string(k.requester) + "/" + k.id) }

func (r *record) key() execKey { return execKey{r.Requester, r.ID} }

func (r *record) jobKey() []byte {
	return []byte(jobPrefix + string(r.Requester) + "/" + r.Job + "/" + r.ID)
}

func leaseKey(requester perigee.PeerID, id string) []byte {
	return []byte(leasePrefix + string(requester) + "/" + id)
}

// owner is the name under which an execution's output is pinned.
func (k execKey) owner() string { return "result/" + string(k.requester) + "/" + k.id }

func (p *Provider) load(k execKey) (*record, error) {
	b, err := p.cfg.DB.Get(k.db())
	if err != nil {
		return nil, err
	}
	r := new(record)
	return r, perigee.Decode(b, r)
}

func (p *Provider) loadLease(requester perigee.PeerID, id string) (*perigee.Lease, error) {
	b, err := p.cfg.DB.Get(leaseKey(requester, id))
	if err != nil {
		return nil, err
	}
	r := new(leaseRecord)
	return &r.Lease, perigee.Decode(b, r)
}

// save writes an execution's record; durable when it returns nil.
func (p *Provider) save(r *record) error {
	b := new(db.Batch)
	if err := b.PutValue(r.key().db(), r); err != nil {
		return err
	}
	return p.cfg.DB.Write(b)
}

// recover reads the executions that were accepted and not finished when the
// last process ended, and queues them again in order of acceptance.
func (p *Provider) recover() error {
	err := p.cfg.DB.Scan([]byte(execPrefix), nil, func(_, v []byte) error {
		r := new(record)
		if err := perigee.Decode(v, r); err != nil {
			return err
		}
		if !r.State.Final() {
			x := newExecution(r)
			p.active[x.key] = x
			p.queue = append(p.queue, x)
		}
		return nil
	})
	if err != nil {
		return perigee.E("provider.New", perigee.Corrupt, err, "reading accepted executions")
	}
	sortByAcceptance(p.queue)
	return nil
}

// janitor lets go of results whose retention is over.
func (p *Provider) janitor() {
	defer p.wg.Done()
	tick := time.NewTicker(janitorInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-tick.C:
			if err := p.expire(now); err != nil {
				p.cfg.Log.Warn("letting expired results go", "err", err)
			}
		}
	}
}

// expire releases every final execution whose retention ended before now.
func (p *Provider) expire(now time.Time) error {
	var due []*record
	err := p.cfg.DB.Scan([]byte(execPrefix), nil, func(_, v []byte) error {
		r := new(record)
		if err := perigee.Decode(v, r); err != nil {
			return err
		}
		if r.State.Final() && r.Expires < now.UnixMilli() {
			due = append(due, r)
			if len(due) >= 1000 {
				return db.Stop
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range due {
		if err := p.release(r); err != nil {
			return err
		}
	}
	return nil
}

// release unpins a final execution's output and forgets the execution.
func (p *Provider) release(r *record) error {
	if r.Output.Defined() {
		if err := p.cfg.Data.Unpin(p.ctx, r.Output, r.key().owner()); err != nil && !errors.Is(err, perigee.NotFound) {
			return err
		}
	}
	b := new(db.Batch)
	b.Delete(r.key().db())
	b.Delete(r.jobKey())
	return p.cfg.DB.WriteLazy(b)
}
