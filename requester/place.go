package requester

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/schedule"
)

const (
	asksPerBid    = 4096     // parts in one bid request
	leaseMax      = 512      // executions in one lease
	leaseBytes    = 2 << 20  // bytes of parts in one lease
	bytesPerSec   = 50 << 20 // what the planner takes a link between nodes to carry
	mergeAsks     = 1024     // outputs named in the bid request of a merge
	maxCandidates = 256      // providers asked for a bid at once
)

// place plans the parts that want an execution. Asking for bids happens away
// from the loop. mu is held.
func (u *run) place(now time.Time) {
	if u.placing || now.Before(u.placeAt) {
		return
	}
	want := u.wanting(now)
	if len(want) == 0 {
		return
	}
	u.placing = true
	problem := u.problem(want)
	asks := u.asks(want)
	busy := maps.Clone(u.busy)
	broken, holders := maps.Clone(u.broken), u.holders(want)
	u.r.wg.Add(1)
	go func() {
		defer u.r.wg.Done()
		problem.Candidates = u.r.candidates(u.ctx, u.rec.ID, &u.job, asks, broken, holders)
		for i := range problem.Candidates {
			problem.Candidates[i].Busy = busy[problem.Candidates[i].Offer.Provider]
		}
		plan := schedule.Place(problem)
		u.post(func() { u.placing = false; u.adoptPlan(want, plan) })
	}()
}

// problem states the placement of parts; candidates are added later.
func (u *run) problem(want []*part) schedule.Problem {
	p := schedule.Problem{Job: u.remaining(), Engine: u.r.cfg.Engine, Now: time.Now().UnixMilli(),
		BytesPerSecond: bytesPerSec, PartSeconds: u.median().Seconds()}
	for _, x := range want {
		need := schedule.PartNeed{Index: x.Index, Bytes: x.bytes, Copies: u.missing(x)}
		if x.copies > 1 && len(x.execs) > 0 {
			if b := u.bids[x.execs[0].Provider]; b != nil {
				need.Class = b.Class
			}
		}
		for _, e := range x.execs {
			// Replicas run on different providers, and a failure is tried elsewhere.
			if !e.State.Final() || e.State == perigee.ExecCompleted || x.tried[e.Provider] {
				need.Avoid = appendPeer(need.Avoid, e.Provider)
			}
		}
		p.Parts = append(p.Parts, need)
	}
	return p
}

// remaining is the job with its caps less what earlier plans spent of them.
func (u *run) remaining() *perigee.Job {
	job := u.job
	if job.Placement.MaxTransfer > 0 {
		job.Placement.MaxTransfer = max(job.Placement.MaxTransfer-perigee.Size(u.moved), 1)
	}
	if job.Price.MaxTotal != nil {
		left := *job.Price.MaxTotal - float64(u.spent)/1e6
		left = max(left, 0)
		job.Price.MaxTotal = &left
	}
	return &job
}

// asks describes parts' inputs to bidders. A merge's input is named by the
// outputs it is made of, which providers know, not by the directory over them.
func (u *run) asks(want []*part) []perigee.PartAsk {
	asks := make([]perigee.PartAsk, 0, len(want))
	for _, p := range want {
		a := perigee.PartAsk{Index: p.Index, Inputs: p.Part.Inputs}
		if p.Merge {
			a.Inputs = nil
			for i, x := range u.parts[:min(u.rec.Parts, mergeAsks)] {
				res := x.accepted.Result
				a.Inputs = append(a.Inputs, perigee.PartInput{Mount: fmt.Sprintf("%s/%d", mergeMount, i), CID: res.Output, Size: res.Size})
			}
		}
		asks = append(asks, a)
	}
	return asks
}

// holders are the nodes known to hold some input of parts.
func (u *run) holders(want []*part) map[perigee.PeerID]bool {
	m := map[perigee.PeerID]bool{}
	for _, p := range want {
		for _, in := range p.Part.Inputs {
			for _, id := range u.hints[in.CID] {
				m[id] = true
			}
		}
	}
	return m
}

// shortlist chooses whom to ask when there are more offers than may be asked:
// holders first, since a job goes to the bytes, and of the others any, so that
// no order of names or prices decides who is never seen.
func shortlist(offers []*perigee.Offer, holders map[perigee.PeerID]bool) []*perigee.Offer {
	if len(offers) <= maxCandidates {
		return offers
	}
	mathrand.Shuffle(len(offers), func(i, j int) { offers[i], offers[j] = offers[j], offers[i] })
	slices.SortStableFunc(offers, func(a, b *perigee.Offer) int {
		switch {
		case holders[a.Provider] == holders[b.Provider]:
			return 0
		case holders[a.Provider]:
			return -1
		}
		return 1
	})
	return offers[:maxCandidates]
}

// candidates asks those with a standing offer for a bid.
func (r *Requester) candidates(ctx context.Context, job string, spec *perigee.Job, asks []perigee.PartAsk, broken map[perigee.PeerID]string, holders map[perigee.PeerID]bool) []schedule.Candidate {
	offers := shortlist(r.cfg.Offers.All(), holders)
	list := make([]schedule.Candidate, len(offers))
	var wg sync.WaitGroup
	for i, o := range offers {
		c := &list[i]
		c.Offer = o
		if c.Distrusted = broken[o.Provider]; c.Distrusted != "" {
			continue
		}
		if c.Silent = r.silentLately(o.Provider); c.Silent != "" {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			bid, err := r.bid(ctx, o, job, spec, asks)
			if err != nil {
				c.Silent = err.Error()
				r.noteSilence(o.Provider, err)
				return
			}
			c.Bid = bid
		}()
	}
	wg.Wait()
	return list
}

// silentFor is how long a provider that did not answer is not asked again, so
// that one that went away does not slow every placement until its offer ends.
const silentFor = 5 * time.Second

type silent struct {
	at  time.Time
	why string
}

func (r *Requester) noteSilence(id perigee.PeerID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silence[id] = silent{time.Now(), err.Error()}
}

// silentLately says why a provider is not asked now, "" when it is.
func (r *Requester) silentLately(id perigee.PeerID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.silence[id]
	if known && time.Since(s.at) > silentFor {
		delete(r.silence, id)
		known = false
	}
	if !known {
		return ""
	}
	return s.why
}

// bid asks one provider about all parts and checks its answer.
func (r *Requester) bid(ctx context.Context, o *perigee.Offer, job string, spec *perigee.Job, asks []perigee.PartAsk) (*perigee.Bid, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.BidTimeout)
	defer cancel()
	provider := r.cfg.Dial(o.Provider)
	var all *perigee.Bid
	for first := true; first || len(asks) > 0; first = false {
		n := min(asksPerBid, len(asks))
		bid, err := provider.Bid(ctx, &perigee.BidRequest{Requester: r.cfg.Peer, Job: job, Engine: r.cfg.Engine,
			Limits: limitsOf(spec), CPU: spec.Resources.CPU, Parts: asks[:n]})
		if err != nil {
			return nil, err
		}
		if bid.Provider != o.Provider || bid.Requester != r.cfg.Peer || bid.Job != job {
			return nil, perigee.E("requester.Bid", perigee.Corrupt, "its bid is for something else")
		}
		if err := perigee.CheckSignature(bid); err != nil {
			return nil, err
		}
		asks = asks[n:]
		if all == nil {
			all = bid
		} else {
			all.Local = append(all.Local, bid.Local...)
		}
	}
	return all, nil
}

// adoptPlan takes a plan's assignments, or says why there are none. mu is held.
func (u *run) adoptPlan(want []*part, plan schedule.Plan) {
	now := time.Now()
	u.explain(plan.Explanation)
	if u.rec.State.Final() {
		return
	}
	byIndex := make(map[int]*part, len(want))
	for _, p := range want {
		byIndex[p.Index] = p
	}
	for _, c := range plan.Explanation.Candidates {
		u.bids[c.Provider] = &perigee.Bid{Slots: c.Slots, Region: c.Region, Price: c.Price, Class: c.Class}
	}
	for _, a := range plan.Assignments {
		p := byIndex[a.Part]
		if p == nil || p.accepted != nil {
			continue
		}
		p.planned = true
		u.moved += a.Missing
		u.spent += u.bids[a.Provider].Price
		u.plan[a.Provider] = append(u.plan[a.Provider], p)
	}
	if len(plan.Assignments) > 0 {
		if len(plan.Explanation.Unplaced) > 0 {
			u.placeAt = now.Add(200 * time.Millisecond)
		}
		u.stuck, u.note = time.Time{}, ""
		u.topUp()
		return
	}
	u.unplaceable(want, plan, now)
}

// unplaceable deals with a plan that places nothing: first parts may go back to
// providers that failed them, then the job waits for offers, then it fails.
func (u *run) unplaceable(want []*part, plan schedule.Plan, now time.Time) {
	u.placeAt = now.Add(200 * time.Millisecond)
	for _, p := range want {
		if p.hedged { // nobody else is there to hedge with; look again later
			p.hedged, p.hedgeAt = false, now.Add(5*time.Second)
		} else {
			clear(p.tried)
			u.waiveAudit(p)
		}
	}
	reason := "no provider's offer is known yet"
	if len(plan.Explanation.Unplaced) > 0 {
		reason = plan.Explanation.Unplaced[0].Reason
	}
	if u.anyActive(want) {
		return // something runs; another copy can wait
	}
	u.note = "waiting for a provider: " + reason
	if u.stuck.IsZero() {
		u.stuck, u.news = now, true
	}
	if waited := now.Sub(u.stuck); waited > u.patience(plan) {
		kind := perigee.Unavailable
		if refusedForGood(plan) {
			kind = perigee.Refused
		}
		u.end(perigee.JobFailed, perigee.E("requester.Place", kind, "%s: no provider can run it: %s", u.partName(want[0]), reason))
	}
}

func (u *run) anyActive(parts []*part) bool {
	for _, p := range parts {
		for _, e := range p.execs {
			if !e.State.Final() {
				return true
			}
		}
	}
	return false
}

// patience is how long to wait for someone to take a job that nobody takes:
// short when every known provider refuses it by a rule that waiting will not
// change, since only a newcomer could help.
func (u *run) patience(plan schedule.Plan) time.Duration {
	if refusedForGood(plan) {
		return min(2*time.Second, u.r.cfg.PlaceTimeout)
	}
	return u.r.cfg.PlaceTimeout
}

func refusedForGood(plan schedule.Plan) bool {
	for _, c := range plan.Explanation.Candidates {
		switch c.Rule {
		case "region", "exclude", "engine", "resources", "price", "transfer":
		default:
			return false
		}
	}
	return len(plan.Explanation.Candidates) > 0
}

// window is how many executions a provider may hold at once.
func (u *run) window(id perigee.PeerID) int {
	slots := 1
	if b := u.bids[id]; b != nil {
		slots = max(b.Slots, 1)
	}
	return max(8*slots, 16)
}

// topUp leases planned parts to providers that have room. mu is held.
func (u *run) topUp() {
	if len(u.plan) == 0 || u.rec.State.Final() {
		return
	}
	ids := make([]perigee.PeerID, 0, len(u.plan))
	for id := range u.plan {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		room := min(u.window(id)-u.busy[id], leaseMax)
		var take []*part
		queue := u.plan[id]
		for room > 0 && len(queue) > 0 {
			p := queue[0]
			queue = queue[1:]
			if p.accepted == nil {
				take = append(take, p)
				room--
			} else {
				p.planned = false
			}
		}
		if len(queue) == 0 {
			delete(u.plan, id)
		} else {
			u.plan[id] = queue
		}
		if len(take) > 0 {
			u.lease(id, take)
		}
	}
}

// unplan returns what was planned for a provider.
func (u *run) unplan(id perigee.PeerID) {
	for _, p := range u.plan[id] {
		p.planned = false
	}
	delete(u.plan, id)
}

// steal plans anew when a provider has run dry while another's plan is long.
func (u *run) steal() {
	if len(u.plan) == 0 || u.placing {
		return
	}
	idle := false
	for id := range u.links {
		if u.busy[id] == 0 && len(u.plan[id]) == 0 && u.broken[id] == "" {
			idle = true
		}
	}
	if !idle || time.Now().Before(u.placeAt) {
		return
	}
	for id, q := range u.plan {
		if len(q) > 2*u.window(id) {
			u.unplan(id)
			u.placeAt = time.Now()
		}
	}
}

// lease writes new executions and sends them to their provider under one or
// several leases.
func (u *run) lease(id perigee.PeerID, parts []*part) {
	f := u.linkTo(id)
	now := time.Now()
	var batch []*exec
	size := 0
	send := func() {
		if len(batch) > 0 {
			execs := batch
			u.after = append(u.after, func() { u.send(f, execs) })
			batch, size = nil, 0
		}
	}
	region, price := "", perigee.Amount(0)
	if b := u.bids[id]; b != nil {
		region, price = b.Region, b.Price
	}
	for _, p := range parts {
		p.planned = false
		p.attempts++
		e := u.addExec(p, execRecord{
			ID: fmt.Sprintf("%s-%d-%d", u.rec.ID, p.Index, p.attempts), Job: u.rec.ID, Part: p.Index, Merge: p.Merge,
			Label: p.Label, Attempt: p.attempts, Provider: id, Region: region, State: perigee.ExecLeased, Key: p.key,
			Leased: now.UnixMicro(), Price: price,
		})
		u.write(e.dbKey(), &e.execRecord)
		n := partSize(&p.Part)
		if size+n > leaseBytes {
			send()
		}
		batch, size = append(batch, e), size+n
	}
	send()
}

// partSize estimates a part's encoded size.
func partSize(p *perigee.Part) int {
	n := 256
	for _, a := range p.Args {
		n += len(a) + 4
	}
	for k, v := range p.Env {
		n += len(k) + len(v) + 8
	}
	for _, in := range p.Inputs {
		n += len(in.Mount) + 128
	}
	return n
}

// median of how long completed executions took.
func (u *run) median() time.Duration {
	if len(u.times) == 0 {
		return 0
	}
	s := slices.Clone(u.times)
	slices.Sort(s)
	return s[len(s)/2]
}

// hedge starts a second execution of a part whose only one takes much longer
// than the others did, once nothing else waits.
func (u *run) hedge(now time.Time) {
	if u.rec.Parts < 2 || len(u.times)*2 < u.rec.Parts || len(u.plan) > 0 {
		return
	}
	limit := max(4*u.median(), u.r.cfg.HedgeAfter)
	for e := range u.active {
		p := e.part
		if p.hedged || p.planned || now.Before(p.hedgeAt) || p.attempts >= u.job.Attempts+p.copies-1 {
			continue
		}
		if now.Sub(time.UnixMicro(e.Leased)) > limit {
			p.hedged = true
			u.open[p] = struct{}{}
		}
	}
}

// silence is how much longer than its own limits an execution may stay unheard
// of before the requester gives it up.
const silence = 30 * time.Second

// maxGathering is how long a provider may take to fetch inputs, before it starts
// anything.
const maxGathering = 11 * time.Minute

// expireSilent gives up executions that a live provider neither ends nor
// explains within their time.
func (u *run) expireSilent(now time.Time) {
	limit := u.job.Resources.Timeout.D() + silence
	for e := range u.active {
		if e.State == perigee.ExecLeased && now.Sub(u.progress[e.Provider]) > max(limit, maxGathering) &&
			now.Sub(time.UnixMicro(e.Leased)) > max(limit, maxGathering) {
			u.fail(e, perigee.ExecLost, &perigee.Fault{Kind: perigee.Timeout, Message: fmt.Sprintf(
				"the provider accepted it and started nothing for %s", max(limit, maxGathering))})
			u.withdraw(e)
		}
		if e.State == perigee.ExecRunning && now.Sub(time.UnixMicro(e.Started)) > limit {
			u.fail(e, perigee.ExecLost, &perigee.Fault{Kind: perigee.Timeout, Message: fmt.Sprintf(
				"the provider did not end it %s after its timeout of %s", silence, u.job.Resources.Timeout)})
			u.distrust(e.Provider, "it does not keep timeouts")
			u.withdraw(e)
		}
	}
}

// Explain plans a job without running it.
func (r *Requester) Explain(ctx context.Context, job perigee.Job) (perigee.Explanation, error) {
	if err := job.Normalize(); err != nil {
		return perigee.Explanation{}, err
	}
	parts, hints, err := r.parts(ctx, &job)
	if err != nil {
		return perigee.Explanation{}, err
	}
	u := r.newRun(&jobRecord{ID: "explain", Parts: len(parts)}, job)
	defer u.stop()
	for _, p := range parts {
		u.addPart(p)
	}
	problem := u.problem(u.parts)
	for _, h := range hints {
		u.hints[h.CID] = h.Peers
	}
	problem.Candidates = r.candidates(ctx, u.rec.ID, &job, u.asks(u.parts), nil, u.holders(u.parts))
	return schedule.Place(problem).Explanation, nil
}

// ExplainJob returns the explanation of the last plan made for a job.
func (r *Requester) ExplainJob(ctx context.Context, id string) (perigee.Explanation, error) {
	var raw []byte
	if u := r.running(id); u != nil {
		u.mu.Lock()
		raw = u.rec.Explanation
		u.mu.Unlock()
	} else {
		rec, err := r.loadJob(id)
		if err != nil {
			return perigee.Explanation{}, err
		}
		raw = rec.Explanation
	}
	return decodeExplanation(id, raw)
}

func decodeExplanation(id string, raw []byte) (perigee.Explanation, error) {
	var x perigee.Explanation
	if len(raw) == 0 {
		return x, perigee.E("requester.Explain", perigee.NotFound, "job %s was never placed: earlier results answered it, or it ended before", id)
	}
	if err := json.Unmarshal(raw, &x); err != nil {
		return x, perigee.E("requester.Explain", perigee.Corrupt, err, "job %s", id)
	}
	return x, nil
}
