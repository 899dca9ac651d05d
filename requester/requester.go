// Package requester is the role that asks for work. It turns a job into parts,
// finds who may run them, leases executions, follows them, checks their results
// and keeps what it learned, so that a job ends with exactly one accepted result
// per part whatever dies in between.
//
// A submitted job is written before it is acknowledged; an execution is written
// before its lease is sent; a result is accepted by writing it. After a restart
// the requester reads its jobs, asks the providers where the executions stand,
// and goes on.
//
// Terms: a run is a job that is not final, held in memory by one goroutine (its
// loop); a feed is the open watch at one provider, shared by the runs; an outcome is what an
// execution ended with, compared between replicas.
package requester

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/db"
)

// Data is what a requester needs of the content store; *data.Store is one.
type Data interface {
	Resolve(ctx context.Context, path string) (perigee.CID, error)
	Stat(ctx context.Context, c perigee.CID) (data.Info, error)
	List(ctx context.Context, c perigee.CID, fn func(path string, e perigee.TreeEntry) error) error
	LocalBytes(ctx context.Context, in perigee.PartInput) (int64, error)
	Fetch(ctx context.Context, in perigee.PartInput, from []perigee.PeerID, progress func(n int64)) (data.Fetched, error)
	Holders(ctx context.Context, c perigee.CID) ([]data.Holder, error)
	LookupDataset(ctx context.Context, name string) (*perigee.Dataset, error)
	Combine(ctx context.Context, entries []data.Named, pin string) (perigee.CID, error)
	OpenFile(ctx context.Context, c perigee.CID) (io.ReadSeekCloser, error)
	PutBlock(ctx context.Context, codec uint64, b []byte) (perigee.CID, error)
	GetBlock(ctx context.Context, c perigee.CID) ([]byte, error)
	ImportCAR(ctx context.Context, r io.Reader, pin string) ([]perigee.CID, error)
	Pin(ctx context.Context, c perigee.CID, owner string) error
	Unpin(ctx context.Context, c perigee.CID, owner string) error
}

// Provider is a provider as the requester talks to it, near or far. Errors of
// kind Unavailable mean that it could not be reached. Safe for concurrent use.
type Provider interface {
	Bid(ctx context.Context, req *perigee.BidRequest) (*perigee.Bid, error)
	Lease(ctx context.Context, l *perigee.Lease) (*perigee.LeaseAnswer, error)
	// Watch calls fn with each event until ctx ends, the provider goes away
	// (an error of kind Unavailable) or fn fails.
	Watch(ctx context.Context, req *perigee.WatchRequest, fn func(*perigee.Event) error) error
	Cancel(ctx context.Context, req *perigee.CancelRequest) (*perigee.CancelAnswer, error)
}

// Config makes a requester.
type Config struct {
	Peer   perigee.PeerID
	Sign   func(msg []byte) []byte // with the node's key
	DB     db.DB
	Data   Data
	Offers *Offers
	Dial   func(perigee.PeerID) Provider
	Engine string // engine version that parts ask for
	Log    *slog.Logger

	// The times below have the defaults their comments name when zero.
	FindTimeout  time.Duration // to find an input and its holders: 30 s
	BidTimeout   time.Duration // for one provider's bid: 3 s
	LossTimeout  time.Duration // a provider out of reach this long has lost its executions: 10 s
	PlaceTimeout time.Duration // a job that no provider takes fails after this long: 30 s
	HedgeAfter   time.Duration // no execution is hedged before this long: 3 s
}

// Requester owns this node's jobs. It is safe for concurrent use.
type Requester struct {
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	submit  sync.Mutex // one keyed submission at a time
	mu      sync.Mutex
	runs    map[string]*run
	silence map[perigee.PeerID]silent
	feeds   map[perigee.PeerID]*feed
}

// New makes a requester and resumes the jobs that its database holds unfinished.
func New(cfg Config) (*Requester, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&cfg.FindTimeout, 30*time.Second)
	setDefault(&cfg.BidTimeout, 3*time.Second)
	setDefault(&cfg.LossTimeout, 10*time.Second)
	setDefault(&cfg.PlaceTimeout, 30*time.Second)
	setDefault(&cfg.HedgeAfter, 3*time.Second)
	ctx, stop := context.WithCancel(context.Background())
	r := &Requester{cfg: cfg, ctx: ctx, stop: stop, runs: map[string]*run{}, silence: map[perigee.PeerID]silent{}, feeds: map[perigee.PeerID]*feed{}}
	if err := r.resume(); err != nil {
		stop()
		return nil, err
	}
	r.wg.Add(1)
	go r.janitor()
	return r, nil
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// Close stops following all jobs and waits; New over the same database goes on
// with them. Executions at providers go on meanwhile.
func (r *Requester) Close() error {
	r.stop()
	r.wg.Wait()
	return nil
}

// resume starts a run for every job that is not final.
func (r *Requester) resume() error {
	var open []*jobRecord
	err := r.cfg.DB.Scan([]byte(openPrefix), nil, func(k, _ []byte) error {
		rec, err := r.loadJob(string(k[len(openPrefix):]))
		if err != nil {
			return err
		}
		open = append(open, rec)
		return nil
	})
	if err != nil {
		return perigee.E("requester.New", perigee.Corrupt, err, "reading unfinished jobs")
	}
	for _, rec := range open {
		u, err := r.restoreRun(rec)
		if err != nil {
			return err
		}
		r.start(u)
	}
	return nil
}

func (r *Requester) start(u *run) {
	r.mu.Lock()
	r.runs[u.rec.ID] = u
	r.mu.Unlock()
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		u.loop()
		r.mu.Lock()
		delete(r.runs, u.rec.ID)
		r.mu.Unlock()
	}()
}

// newJobID returns an ID that sorts by time: "j", 12 hexadecimal digits of Unix
// milliseconds and 10 random ones.
func newJobID(now time.Time) string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return fmt.Sprintf("j%012x%s", now.UnixMilli(), hex.EncodeToString(b[:]))
}

// Submit checks a job, writes it and starts it. When it returns an ID the job
// survives any crash. A second call with the same non-empty idempotency key
// returns the first call's ID; with another job under it, it is Invalid.
func (r *Requester) Submit(ctx context.Context, job perigee.Job, idempotencyKey string) (string, error) {
	if err := job.Normalize(); err != nil {
		return "", err
	}
	if len(idempotencyKey) > 256 {
		return "", perigee.E("requester.Submit", perigee.Invalid, "an idempotency key has at most 256 bytes, this has %d", len(idempotencyKey))
	}
	spec, err := json.Marshal(&job)
	if err != nil {
		return "", perigee.E("requester.Submit", perigee.Internal, err)
	}
	if idempotencyKey != "" {
		r.submit.Lock()
		defer r.submit.Unlock()
		if id, err := r.cfg.DB.Get([]byte(idemPrefix + idempotencyKey)); err == nil {
			rec, err := r.loadJob(string(id))
			if err != nil {
				return "", err
			}
			if string(rec.Spec) != string(spec) {
				return "", perigee.E("requester.Submit", perigee.Invalid, "idempotency key %q was used for another job, %s", idempotencyKey, id)
			}
			return string(id), nil
		} else if !errors.Is(err, perigee.NotFound) {
			return "", err
		}
	}
	now := time.Now()
	rec := &jobRecord{ID: newJobID(now), Spec: spec, Name: job.Name, Created: now.UnixMicro(), State: perigee.JobQueued}
	b := new(db.Batch)
	if err := b.PutValue(jobKey(rec.ID), rec); err != nil {
		return "", err
	}
	b.Put([]byte(openPrefix+rec.ID), nil)
	b.Put(timeKey(rec), []byte(rec.ID))
	if idempotencyKey != "" {
		b.Put([]byte(idemPrefix+idempotencyKey), []byte(rec.ID))
	}
	if err := r.cfg.DB.Write(b); err != nil {
		return "", err
	}
	r.start(r.newRun(rec, job))
	return rec.ID, nil
}

func (r *Requester) running(id string) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.runs[id]
}

// Get tells where a job stands, with all its executions.
func (r *Requester) Get(ctx context.Context, id string) (perigee.JobStatus, error) {
	if u := r.running(id); u != nil {
		return u.status(true), nil
	}
	rec, err := r.loadJob(id)
	if err != nil {
		return perigee.JobStatus{}, err
	}
	st := rec.status()
	err = r.scanExecs(id, func(x *execRecord) { st.Executions = append(st.Executions, x.status()) })
	sortExecutions(st.Executions)
	return st, err
}

// List returns the newest jobs first, at most limit of them, without executions.
func (r *Requester) List(ctx context.Context, limit int) ([]perigee.JobStatus, error) {
	list := []perigee.JobStatus{}
	err := r.cfg.DB.Scan([]byte(timePrefix), nil, func(_, v []byte) error {
		if len(list) >= limit {
			return db.Stop
		}
		if u := r.running(string(v)); u != nil {
			list = append(list, u.status(false))
			return nil
		}
		rec, err := r.loadJob(string(v))
		if err != nil {
			return err
		}
		list = append(list, rec.status())
		return nil
	})
	return list, err
}

// Cancel stops a job: its executions are withdrawn and no result will be
// accepted. Cancelling a final job changes nothing.
func (r *Requester) Cancel(ctx context.Context, id string) error {
	u := r.running(id)
	if u == nil {
		_, err := r.loadJob(id)
		return err
	}
	u.post(func() {
		u.end(perigee.JobCancelled, perigee.E("requester.Cancel", perigee.Cancelled, "cancelled by its owner"))
	})
	select {
	case <-u.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait returns the job's status once it is final.
func (r *Requester) Wait(ctx context.Context, id string) (perigee.JobStatus, error) {
	if u := r.running(id); u != nil {
		select {
		case <-u.done:
		case <-ctx.Done():
			return perigee.JobStatus{}, ctx.Err()
		}
	}
	return r.Get(ctx, id)
}

// watchExecutions is how many parts a job may have for Watch to tell of each
// execution with every change, and not only at the end.
const watchExecutions = 256

// Watch calls fn with the job's status at once, after changes (at most ten times
// a second), and a last time when it is final.
func (r *Requester) Watch(ctx context.Context, id string, fn func(perigee.JobStatus) error) error {
	for {
		u := r.running(id)
		if u == nil {
			st, err := r.Get(ctx, id)
			if err != nil {
				return err
			}
			return fn(st)
		}
		changed := u.changes()
		if st := u.status(u.partCount() <= watchExecutions); !st.State.Final() {
			if err := fn(st); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.done:
			continue
		case <-changed:
		}
		select { // coalesce
		case <-ctx.Done():
			return ctx.Err()
		case <-u.done:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Receipt returns a receipt that this node holds or can fetch, unchecked.
func (r *Requester) Receipt(ctx context.Context, c perigee.CID) (*perigee.Receipt, error) {
	b, err := r.cfg.Data.GetBlock(ctx, c)
	if err != nil {
		return nil, err
	}
	rc := new(perigee.Receipt)
	if err := perigee.Decode(b, rc); err != nil {
		return nil, perigee.E("requester.Receipt", perigee.Invalid, err, "%s is not a receipt", c)
	}
	return rc, nil
}

// janitor unpins what jobs keep once their retention is over.
func (r *Requester) janitor() {
	defer r.wg.Done()
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case now := <-tick.C:
			if err := r.expire(now); err != nil {
				r.cfg.Log.Warn("letting expired results go", "err", err)
			}
		}
	}
}

// Open returns how many jobs are not final.
func (r *Requester) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.runs)
}
