package requester

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
)

// feed is this requester's open watch at one provider, for all its runs there.
// It is reopened when it breaks and closed some time after the last run left.
type feed struct {
	r        *Requester
	id       perigee.PeerID
	provider Provider
	ctx      context.Context
	stop     context.CancelFunc

	mu     sync.Mutex
	runs   map[string]*run // by job
	idle   time.Time       // since when there are none
	ready  chan struct{}   // closed once the present watch is heard of
	epoch  int             // counts watches
	reopen context.CancelFunc
	taking chan struct{} // bounds the ends of executions that are taken at once
}

// takeAtOnce bounds the ends of executions that a feed takes at once.
const takeAtOnce = 64

// feedLinger is how long a feed without runs stays open for the next job.
const feedLinger = 30 * time.Second

// feed returns the feed of a provider with the run attached, opening it if need
// be.
func (r *Requester) feed(id perigee.PeerID, u *run) *feed {
	r.mu.Lock()
	f := r.feeds[id]
	if f == nil {
		ctx, stop := context.WithCancel(r.ctx)
		f = &feed{r: r, id: id, provider: r.cfg.Dial(id), ctx: ctx, stop: stop, runs: map[string]*run{}, ready: make(chan struct{}), taking: make(chan struct{}, takeAtOnce)}
		r.feeds[id] = f
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			f.follow()
		}()
	}
	f.mu.Lock()
	f.runs[u.rec.ID] = u
	f.mu.Unlock()
	r.mu.Unlock()
	return f
}

// leave detaches a run that ended.
func (f *feed) leave(job string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.runs, job)
	if len(f.runs) == 0 {
		f.idle = time.Now()
	}
}

// retire ends a feed that nobody has used for a while, and reports whether it did.
func (f *feed) retire() bool {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.runs) > 0 || time.Since(f.idle) < feedLinger {
		return false
	}
	delete(f.r.feeds, f.id)
	f.stop()
	return true
}

// linkTo attaches the run to a provider's feed; u.mu is held.
func (u *run) linkTo(id perigee.PeerID) *feed {
	f := u.links[id]
	if f == nil {
		f = u.r.feed(id, u)
		u.links[id] = f
	}
	return f
}

// follow keeps a watch open. When the provider stays out of reach for
// LossTimeout, all it holds is lost.
func (f *feed) follow() {
	lastHeard := time.Now()
	backoff := 50 * time.Millisecond
	for f.ctx.Err() == nil {
		ids, any := f.confirmed()
		if !any {
			// Nothing runs there: no reason to hold on to a provider that went away.
			lastHeard = time.Now()
			if f.retire() {
				return
			}
		}
		ctx, cancel := context.WithCancel(f.ctx)
		f.mu.Lock()
		f.reopen = cancel
		f.mu.Unlock()
		err := f.provider.Watch(ctx, &perigee.WatchRequest{Executions: ids}, func(ev *perigee.Event) error {
			lastHeard, backoff = time.Now(), 50*time.Millisecond
			f.heard(ev)
			if ev.Kind == perigee.EventBeat {
				f.retire()
			}
			return ctx.Err()
		})
		forced := ctx.Err() != nil
		cancel()
		if f.ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		select {
		case <-f.ready:
			f.ready = make(chan struct{})
		default:
		}
		f.epoch++
		f.mu.Unlock()
		if forced {
			continue
		}
		if time.Since(lastHeard) > f.r.cfg.LossTimeout {
			for _, u := range f.attached() {
				u.post(func() { u.lost(f.id, err) })
			}
			lastHeard = time.Now()
		}
		select {
		case <-f.ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, time.Second)
	}
}

func (f *feed) attached() []*run {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]*run, 0, len(f.runs))
	for _, u := range f.runs {
		list = append(list, u)
	}
	return list
}

// confirmed returns the executions that the provider must know of, and whether
// any execution is there at all.
func (f *feed) confirmed() (ids []string, any bool) {
	for _, u := range f.attached() {
		u.mu.Lock()
		for e := range u.active {
			if e.Provider == f.id {
				any = true
				if e.confirmed {
					ids = append(ids, e.ID)
				}
			}
		}
		u.mu.Unlock()
	}
	return ids, any
}

// run returns the run that an execution belongs to; execution IDs begin with
// the job's.
func (f *feed) run(execution string) *run {
	job, _, _ := strings.Cut(execution, "-")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[job]
}

func (f *feed) heard(ev *perigee.Event) {
	f.mu.Lock()
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
	f.mu.Unlock()
	if ev.Kind == perigee.EventBeat {
		return
	}
	u := f.run(ev.Execution)
	switch {
	case u == nil:
	case ev.Kind == perigee.EventLog:
		u.onLog(f.id, ev)
	case !ev.State.Final():
		u.post(func() { u.onState(f.id, ev, perigee.CID{}) })
	default:
		f.taking <- struct{}{}
		f.r.wg.Add(1)
		go func() {
			defer f.r.wg.Done()
			f.take(u, ev)
			<-f.taking
		}()
	}
}

// take keeps what an execution ended with and tells its run. Many are taken at
// once, since each waits for the disk.
func (f *feed) take(u *run, ev *perigee.Event) {
	if ev.State == perigee.ExecCompleted {
		rc, kept, err := u.takeReceipt(f.id, ev)
		u.post(func() { u.onReceipt(f.id, ev, rc, kept, err) })
		return
	}
	printed := u.takePrinted(f.id, ev)
	u.post(func() { u.onState(f.id, ev, printed) })
}

// lost gives up everything that an unreachable provider holds; u.mu is held.
func (u *run) lost(id perigee.PeerID, err error) {
	u.unplan(id)
	for e := range u.active {
		if e.Provider == id {
			u.fail(e, perigee.ExecLost, &perigee.Fault{Kind: perigee.Unavailable,
				Message: fmt.Sprintf("provider %s is out of reach: %v", id, err)})
		}
	}
}

// open waits until the feed's watch is open, so that what is leased now is
// told, and returns which watch that is.
func (f *feed) open(ctx context.Context) (epoch int, err error) {
	f.mu.Lock()
	ready := f.ready
	f.mu.Unlock()
	select {
	case <-ready:
	case <-time.After(f.r.cfg.LossTimeout):
		return 0, perigee.E("requester.Lease", perigee.Unavailable, "provider %s is out of reach", f.id)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch, nil
}

// cover reopens the watch if it is younger than epoch: then it does not name
// executions that were confirmed only now.
func (f *feed) cover(epoch int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epoch != epoch && f.reopen != nil {
		f.reopen()
	}
}
