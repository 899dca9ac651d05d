package provider

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Keys in the database:
//
//	prov/l/<requester>/<lease>      leaseRecord
//	prov/x/<requester>/<execution>  record
//	prov/o/<requester>/<execution>  nothing: executions that are not final
//	prov/j/<requester>/<job>/<execution>  nothing: the executions of a job
//	prov/e/<expiry>/<key>           nothing: the executions and leases to forget, by when
const (
	leasePrefix  = "prov/l/"
	execPrefix   = "prov/x/"
	openPrefix   = "prov/o/"
	jobPrefix    = "prov/j/"
	expirePrefix = "prov/e/"
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

// end writes the final record of an execution; durable when it returns nil.
func (p *Provider) end(r *record) error {
	b := new(db.Batch)
	if err := b.PutValue(r.key().db(), r); err != nil {
		return err
	}
	b.Delete(r.key().open())
	b.Put(expiryKey(r.Expires, r.key().db()), nil)
	return p.cfg.DB.Write(b)
}

func (k execKey) open() []byte { return []byte(openPrefix + string(k.requester) + "/" + k.id) }

// expiryKey orders keys by when what they name is to be forgotten.
func expiryKey(millis int64, key []byte) []byte {
	return fmt.Appendf(nil, "%s%016x/%s", expirePrefix, millis, key)
}

// recover reads the executions that were accepted and not finished when the
// last process ended, and queues them again in order of acceptance.
func (p *Provider) recover() error {
	err := p.cfg.DB.Scan([]byte(openPrefix), nil, func(k, _ []byte) error {
		requester, id, _ := strings.Cut(string(k[len(openPrefix):]), "/")
		r, err := p.load(execKey{perigee.PeerID(requester), id})
		if err != nil {
			return err
		}
		x := newExecution(r)
		p.active[x.key] = x
		p.queue = append(p.queue, x)
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

// expireAtOnce bounds the work of one round; the next goes on from there.
const expireAtOnce = 1000

// expire releases the final executions, and forgets the leases, whose time was
// over before now.
func (p *Provider) expire(now time.Time) error {
	due, err := db.Before(p.cfg.DB, expirePrefix, string(expiryKey(now.UnixMilli(), nil)), expireAtOnce)
	if err != nil {
		return err
	}
	for _, k := range due {
		key := k[len(expirePrefix)+17:]
		b := new(db.Batch)
		b.Delete([]byte(k))
		if rest, ok := strings.CutPrefix(key, execPrefix); ok {
			requester, id, _ := strings.Cut(rest, "/")
			r, err := p.load(execKey{perigee.PeerID(requester), id})
			switch {
			case errors.Is(err, perigee.NotFound): // released before
			case err != nil:
				return err
			default:
				if err := p.release(r); err != nil {
					return err
				}
			}
		} else {
			b.Delete([]byte(key))
		}
		if err := p.cfg.DB.WriteLazy(b); err != nil {
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
