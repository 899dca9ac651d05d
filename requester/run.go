package requester

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// part is what a run remembers of one part.
type part struct {
	*partRecord
	key       perigee.CID
	bytes     int64
	copies    int  // results wanted of different providers
	quorum    int  // of which must agree
	unaudited bool // an audit was due and nobody could make it
	attempts  int  // executions made
	hedged    bool
	hedgeAt   time.Time // not to be hedged before
	planned   bool      // waits at a provider's plan, or a lease is under way
	accepted  *execRecord
	tried     map[perigee.PeerID]bool // providers that failed it without proof of fault
	execs     []*exec
	retryAt   time.Time
	log       partLog
}

// exec is an execution and the run's knowledge of it beyond the record.
type exec struct {
	execRecord
	part      *part
	confirmed bool // the provider answered the lease
	kept      bool // its output is here and pinned for the job
}

// run is a job that is not final. Its loop is the only goroutine that changes
// it; others post closures. mu lets readers see it between steps.
type run struct {
	r    *Requester
	job  perigee.Job
	ctx  context.Context
	stop context.CancelFunc
	done chan struct{} // closed when the job is final and written, or the requester closes

	inbox chan func()

	mu       sync.Mutex
	rec      *jobRecord
	parts    []*part
	execs    map[string]*exec
	order    []*exec
	active   map[*exec]struct{}     // those that are not final
	busy     map[perigee.PeerID]int // of them, at each provider
	links    map[perigee.PeerID]*feed
	broken   map[perigee.PeerID]string // providers never to use again in this job, and why
	hints    map[perigee.CID][]perigee.PeerID
	note     string
	changed  chan struct{}      // closed and replaced at each change
	finished int                // accepted parts, the merge not counted
	touched  map[*part]struct{} // parts to judge: something about them changed
	open     map[*part]struct{} // parts that may want an execution

	// Used by the loop only.
	batch    *db.Batch
	after    []func() // to do once batch is written
	plan     map[perigee.PeerID][]*part
	bids     map[perigee.PeerID]*perigee.Bid
	placing  bool
	placeAt  time.Time // not to place before
	stuck    time.Time // since when nothing could be placed; zero when something was
	times    []time.Duration
	ending   bool
	news     bool                         // watchers are to be told although nothing is written
	progress map[perigee.PeerID]time.Time // when each provider last told of a change
	moved    int64                        // input bytes that plans so far move
	spent    perigee.Amount               // what plans so far cost
}

func (r *Requester) newRun(rec *jobRecord, job perigee.Job) *run {
	ctx, stop := context.WithCancel(r.ctx)
	return &run{r: r, job: job, ctx: ctx, stop: stop, done: make(chan struct{}), inbox: make(chan func(), 256),
		rec: rec, execs: map[string]*exec{}, links: map[perigee.PeerID]*feed{}, broken: map[perigee.PeerID]string{},
		hints: map[perigee.CID][]perigee.PeerID{}, changed: make(chan struct{}), batch: new(db.Batch),
		plan: map[perigee.PeerID][]*part{}, bids: map[perigee.PeerID]*perigee.Bid{},
		active: map[*exec]struct{}{}, busy: map[perigee.PeerID]int{},
		touched: map[*part]struct{}{}, open: map[*part]struct{}{}, progress: map[perigee.PeerID]time.Time{}}
}

// restoreRun rebuilds a run from the database.
func (r *Requester) restoreRun(rec *jobRecord) (*run, error) {
	job, err := rec.job()
	if err != nil {
		return nil, err
	}
	u := r.newRun(rec, job)
	if !rec.Split {
		return u, nil
	}
	if err := r.scanParts(rec.ID, func(p *partRecord) { u.addPart(p) }); err != nil {
		return nil, err
	}
	for _, h := range rec.Hints {
		u.hints[h.CID] = h.Peers
	}
	err = r.scanExecs(rec.ID, func(x *execRecord) {
		if x.Part < 0 || x.Part >= len(u.parts) {
			return
		}
		e := u.addExec(u.parts[x.Part], *x)
		e.confirmed = true // ask; a provider that never got the lease says so
		if !x.Reused && (!x.State.Final() || x.State == perigee.ExecCompleted) {
			u.spent += x.Price
			u.moved += x.BytesFetched
		}
		if x.State == perigee.ExecCompleted && x.Fault != nil {
			u.broken[x.Provider] = x.Fault.Message // outvoted before the restart
		}
		if x.Accepted {
			u.parts[x.Part].accepted = &e.execRecord
			if !x.Merge {
				u.finished++
			}
		} else if x.State == perigee.ExecFailed || x.State == perigee.ExecLost {
			u.parts[x.Part].tried[x.Provider] = true
		}
	})
	for _, p := range u.parts {
		if u.job.Verify.Mode == "audit" && p.accepted == nil && len(p.execs) > 1 {
			p.copies, p.quorum = 2, 2 // it may have been under audit
		}
	}
	return u, err
}

// addPart appends a part; parts come in order of index.
func (u *run) addPart(p *partRecord) *part {
	key, err := p.Part.Key()
	if err != nil { // cannot happen: the part was encoded before
		u.r.cfg.Log.Error("job key", "job", u.rec.ID, "err", err)
	}
	x := &part{partRecord: p, key: key, copies: 1, quorum: 1, tried: map[perigee.PeerID]bool{}}
	if u.job.Verify.Mode == "replicate" {
		x.copies, x.quorum = u.job.Verify.Copies, u.job.Verify.Quorum
	}
	for _, in := range p.Part.Inputs {
		x.bytes += in.Bytes()
	}
	u.parts = append(u.parts, x)
	u.touched[x], u.open[x] = struct{}{}, struct{}{}
	return x
}

func (u *run) addExec(p *part, x execRecord) *exec {
	e := &exec{execRecord: x, part: p}
	p.execs = append(p.execs, e)
	p.attempts = max(p.attempts, x.Attempt)
	u.execs[x.ID] = e
	u.order = append(u.order, e)
	u.touched[p], u.open[p] = struct{}{}, struct{}{}
	if !x.State.Final() {
		u.active[e] = struct{}{}
		u.busy[x.Provider]++
	}
	return e
}

// close gives an execution its final state. All changes of state but the one
// from leased to running pass here.
func (u *run) close(e *exec, state perigee.ExecutionState, f *perigee.Fault) {
	if _, on := u.active[e]; on {
		delete(u.active, e)
		if u.busy[e.Provider]--; u.busy[e.Provider] == 0 {
			delete(u.busy, e.Provider)
		}
		if state != perigee.ExecCompleted {
			u.spent -= e.Price // no receipt, no price
		}
	}
	e.State, e.Finished = state, time.Now().UnixMicro()
	if f != nil {
		e.Fault = f
	}
	u.touched[e.part], u.open[e.part] = struct{}{}, struct{}{}
	u.write(e.dbKey(), &e.execRecord)
}

// post hands fn to the loop; it is dropped when the run is over.
func (u *run) post(fn func()) {
	select {
	case u.inbox <- fn:
	case <-u.ctx.Done():
	}
}

// loop drives the job to its end.
func (u *run) loop() {
	defer close(u.done)
	defer u.stop()
	defer u.leave()
	if !u.rec.Split && !u.prepare() {
		return
	}
	u.lock(func() { u.begin() })
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		u.lock(func() { u.step() })
		if !u.flush() {
			return
		}
		if u.ended() {
			u.farewell()
			return
		}
		select {
		case <-u.ctx.Done():
			return
		case fn := <-u.inbox:
			u.lock(fn)
			u.drain()
		case <-tick.C:
		}
	}
}

// drain takes what else is in the inbox, so that one write serves many events.
func (u *run) drain() {
	for range cap(u.inbox) {
		select {
		case fn := <-u.inbox:
			u.lock(fn)
		default:
			return
		}
	}
}

func (u *run) lock(fn func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fn()
}

func (u *run) ended() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rec.State.Final()
}

// prepare divides the job and writes its parts. It reports whether the job goes on.
func (u *run) prepare() bool {
	type answer struct {
		list  []*partRecord
		hints []perigee.HolderHint
		err   error
	}
	got := make(chan answer, 1)
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	go func() {
		list, hints, err := u.r.parts(ctx, &u.job)
		got <- answer{list, hints, err}
	}()
	for {
		select {
		case <-u.ctx.Done():
			return false
		case fn := <-u.inbox: // a cancellation
			u.lock(fn)
			if u.flush() && u.ended() {
				return false
			}
		case a := <-got:
			if u.ctx.Err() != nil {
				return false
			}
			if a.err != nil {
				u.lock(func() { u.end(perigee.JobFailed, a.err) })
				u.flush()
				return false
			}
			u.lock(func() { u.adopt(a.list, a.hints) })
			// Nothing depends on the parts until a lease is written, which makes
			// what was written before it durable too; without them the next start
			// divides the job again.
			return u.flushBy(u.r.cfg.DB.WriteLazy)
		}
	}
}

// adopt takes the parts of a fresh split into the run and its batch.
func (u *run) adopt(list []*partRecord, hints []perigee.HolderHint) {
	u.rec.Split, u.rec.Parts, u.rec.Hints, u.rec.State = true, len(list), hints, perigee.JobRunning
	for _, h := range hints {
		u.hints[h.CID] = h.Peers
	}
	for _, p := range list {
		u.addPart(p)
		u.write(partKey(u.rec.ID, p.Index), p)
	}
	u.saveJob()
}

// begin looks for earlier results and takes up executions of a former life.
func (u *run) begin() {
	for _, p := range u.parts {
		u.reuse(p)
	}
	for e := range u.active {
		u.linkTo(e.Provider)
	}
}

// step does whatever can be done now; mu is held.
func (u *run) step() {
	if u.ending || u.rec.State.Final() {
		return
	}
	now := time.Now()
	for p := range u.touched {
		delete(u.touched, p)
		if p.accepted == nil && u.judge(p) {
			return // the job failed
		}
	}
	if u.finished == u.rec.Parts {
		u.conclude()
		return
	}
	u.advance(now)
}

// advance gets executions going for the parts that want them.
func (u *run) advance(now time.Time) {
	u.hedge(now)
	u.expireSilent(now)
	u.steal()
	u.place(now)
	u.topUp()
}

// wanting returns the parts that need another execution now.
func (u *run) wanting(now time.Time) []*part {
	var list []*part
	for p := range u.open {
		switch {
		case p.accepted != nil || u.missing(p) <= 0:
			delete(u.open, p)
		case !p.planned && !now.Before(p.retryAt):
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *part) int { return a.Index - b.Index })
	return list
}

// counts reports whether how an execution ended has a vote on its part: it gave
// a result, or where results are compared a failure that would be the same
// anywhere, and its provider was not found to be false since.
func (u *run) counts(p *part, e *exec) bool {
	compared := p.quorum > 1
	if compared && u.broken[e.Provider] != "" {
		return false
	}
	return e.State == perigee.ExecCompleted || e.State == perigee.ExecFailed && compared && deterministic(e.Fault)
}

// missing is how many more executions a part wants now.
func (u *run) missing(p *part) int {
	want := p.copies
	if p.hedged {
		want++
	}
	for _, e := range p.execs {
		if !e.State.Final() || u.counts(p, e) {
			want--
		}
	}
	return want
}

// write puts a record into the batch that the loop writes next.
func (u *run) write(key []byte, v any) {
	if err := u.batch.PutValue(key, v); err != nil {
		u.r.cfg.Log.Error("encoding a record", "job", u.rec.ID, "err", err)
	}
}

func (u *run) saveJob() {
	u.rec.Done = u.finished
	u.write(jobKey(u.rec.ID), u.rec)
}

// flush writes the batch, tells watchers, and then does what waited for the
// write. It reports whether the run may go on: a database that does not take
// the job's progress ends the run, which the next start takes up again.
func (u *run) flush() bool { return u.flushBy(u.r.cfg.DB.Write) }

func (u *run) flushBy(write func(*db.Batch) error) bool {
	u.mu.Lock()
	batch, after := u.batch, u.after
	if batch.Len() == 0 && len(after) == 0 && !u.news {
		u.mu.Unlock()
		return true
	}
	u.batch, u.after, u.news = new(db.Batch), nil, false
	u.mu.Unlock()
	if batch.Len() > 0 {
		if err := write(batch); err != nil {
			u.r.cfg.Log.Error("the journal does not take the job's progress", "job", u.rec.ID, "err", err)
			u.lock(func() {
				u.rec.Fault = perigee.FaultOf(err)
				u.note = "stopped: the journal could not be written: " + err.Error()
			})
			return false
		}
	}
	u.lock(func() {
		close(u.changed)
		u.changed = make(chan struct{})
	})
	for _, fn := range after {
		fn()
	}
	return true
}

func (u *run) changes() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.changed
}

func (u *run) partCount() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.parts)
}

// status tells where the job stands.
func (u *run) status(executions bool) perigee.JobStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	st := u.rec.status()
	st.Done = u.finished
	st.Note = u.note
	if executions {
		for _, e := range u.order {
			st.Executions = append(st.Executions, e.status())
		}
		sortExecutions(st.Executions)
	}
	return st
}

// end makes the job final; cause is why it did not complete. mu is held.
func (u *run) end(state perigee.JobState, cause error) {
	if u.rec.State.Final() || u.ending {
		return
	}
	now := time.Now()
	u.rec.State, u.rec.Finished, u.rec.Fault = state, now.UnixMicro(), perigee.FaultOf(cause)
	u.note = ""
	for e := range u.active {
		u.close(e, perigee.ExecCancelled, nil)
	}
	for _, e := range u.order {
		if e.Accepted {
			u.rec.Cost += e.Price
			if e.Result.ExitCode != 0 && u.rec.ExitCode == 0 {
				u.rec.ExitCode = e.Result.ExitCode
			}
		}
	}
	u.saveJob()
	u.batch.Delete([]byte(openPrefix + u.rec.ID))
	u.batch.Put(expiryKey(now.Add(u.job.Retention.D()), u.rec.ID), nil)
}

// leave detaches the run from its feeds.
func (u *run) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range u.links {
		f.leave(u.rec.ID)
	}
}

// farewell tells the providers that an ended job needs nothing more of them.
func (u *run) farewell() {
	u.mu.Lock()
	peers := make([]perigee.PeerID, 0, len(u.links))
	for id := range u.links {
		peers = append(peers, id)
	}
	release := u.rec.State != perigee.JobCompleted
	u.mu.Unlock()
	slices.Sort(peers)
	var wg sync.WaitGroup
	for _, id := range peers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(u.r.ctx, u.r.cfg.BidTimeout)
			defer cancel()
			_, _ = u.r.cfg.Dial(id).Cancel(ctx, &perigee.CancelRequest{Job: u.rec.ID, Release: release})
		}()
	}
	u.r.wg.Add(1)
	go func() { defer u.r.wg.Done(); wg.Wait() }()
}

func (u *run) explain(x perigee.Explanation) {
	if b, err := json.Marshal(x); err == nil {
		u.rec.Explanation = b
	}
}
