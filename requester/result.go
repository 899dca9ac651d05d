package requester

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
)

// deterministic reports whether a fault would meet the same part anywhere: the
// guest itself broke a rule or a limit.
func deterministic(f *perigee.Fault) bool {
	return f != nil && (f.Kind == perigee.Invalid || f.Kind == perigee.Exhausted)
}

// onState takes a provider's word of an execution. mu is held.
// printed is the output of an execution that failed, if it came along.
func (u *run) onState(from perigee.PeerID, ev *perigee.Event, printed perigee.CID) {
	e := u.execs[ev.Execution]
	if e == nil || e.Provider != from || e.State.Final() {
		return
	}
	if ev.State != perigee.ExecLeased {
		u.progress[from] = time.Now()
	}
	switch ev.State {
	case perigee.ExecLeased:
	case perigee.ExecRunning:
		if e.State != perigee.ExecRunning {
			e.State, e.Started = perigee.ExecRunning, time.Now().UnixMicro()
		}
	case perigee.ExecFailed, perigee.ExecCancelled:
		fault := ev.Fault
		if fault == nil {
			fault = &perigee.Fault{Kind: perigee.Internal, Message: "the provider gave no reason"}
		}
		e.Result.Output = printed
		u.fail(e, perigee.ExecFailed, fault)
		return
	case perigee.ExecLost:
		u.fail(e, perigee.ExecLost, &perigee.Fault{Kind: perigee.Unavailable, Message: "the provider does not know the execution"})
		return
	default:
		return
	}
	u.write(e.dbKey(), &e.execRecord)
}

// fail ends an execution without a result; the part is tried elsewhere.
func (u *run) fail(e *exec, state perigee.ExecutionState, f *perigee.Fault) {
	u.close(e, state, f)
	p := e.part
	p.tried[e.Provider] = true
	wait := 100 * time.Millisecond << min(p.attempts, 6)
	p.retryAt = time.Now().Add(wait)
	if state == perigee.ExecFailed && f.Kind == perigee.Corrupt {
		u.r.cfg.Log.Info("execution failed", "job", u.rec.ID, "execution", e.ID, "provider", e.Provider, "err", f.Message)
	}
}

// takeReceipt checks a completed execution's receipt and keeps it with the
// output that came along, so that both are here before the result is accepted.
// It runs in the link's goroutine; mu is not held.
// It reports whether it kept the output.
func (u *run) takeReceipt(from perigee.PeerID, ev *perigee.Event) (rc *perigee.Receipt, kept bool, err error) {
	u.mu.Lock()
	e := u.execs[ev.Execution]
	if e == nil || e.Provider != from || e.State.Final() {
		u.mu.Unlock()
		return nil, false, nil // not asked for
	}
	due := e.execRecord
	u.mu.Unlock()
	rc = new(perigee.Receipt)
	if err := perigee.Decode(ev.Receipt, rc); err != nil {
		return nil, false, err
	}
	if err := u.checkReceipt(&due, rc); err != nil {
		return nil, false, err
	}
	return rc, u.keep(rc, ev.Receipt, ev.Output), nil
}

// takePrinted keeps what a failed guest left behind, for its author to read. It
// is no result. mu is not held.
func (u *run) takePrinted(from perigee.PeerID, ev *perigee.Event) perigee.CID {
	if ev.State != perigee.ExecFailed || len(ev.Output) == 0 {
		return perigee.CID{}
	}
	u.mu.Lock()
	e := u.execs[ev.Execution]
	mine := e != nil && e.Provider == from && !e.State.Final()
	u.mu.Unlock()
	if !mine {
		return perigee.CID{}
	}
	roots, err := u.r.cfg.Data.ImportCAR(u.ctx, bytes.NewReader(ev.Output), owner(u.rec.ID))
	if err != nil || len(roots) != 1 {
		u.r.cfg.Log.Debug("keeping what a failed program printed", "job", u.rec.ID, "err", err)
		return perigee.CID{}
	}
	return roots[0]
}

// onReceipt records the result of a completed execution, or that its receipt is
// no good. mu is held.
func (u *run) onReceipt(from perigee.PeerID, ev *perigee.Event, rc *perigee.Receipt, kept bool, err error) {
	e := u.execs[ev.Execution]
	if e == nil || e.Provider != from || e.State.Final() || rc == nil && err == nil {
		return
	}
	if err != nil {
		u.distrust(e.Provider, "its receipt is no good: "+err.Error())
		u.fail(e, perigee.ExecFailed, &perigee.Fault{Kind: perigee.Corrupt, Message: "the provider's receipt is no good: " + err.Error()})
		return
	}
	e.kept = kept
	u.progress[from] = time.Now()
	if e.Started == 0 {
		e.Started = rc.Started
	}
	e.Result, e.Price, e.Receipt = rc.Result, rc.Price, perigee.SumCID(perigee.CodecDagCBOR, ev.Receipt)
	e.BytesRead, e.BytesFetched = rc.BytesRead, rc.BytesFetched
	u.times = append(u.times, time.Duration(rc.Finished-rc.Started)*time.Microsecond)
	u.close(e, perigee.ExecCompleted, nil)
	u.hints[e.Result.Output] = appendPeer(u.hints[e.Result.Output], e.Provider)
	u.audit(e)
	if p := e.part; p.accepted != nil && p.quorum > 1 { // late, but it may still tell of a liar
		for _, x := range p.execs {
			if &x.execRecord == p.accepted {
				u.disagree(p, []*exec{x})
			}
		}
	}
}

func appendPeer(list []perigee.PeerID, p perigee.PeerID) []perigee.PeerID {
	if slices.Contains(list, p) {
		return list
	}
	return append(slices.Clip(list), p)
}

// keep stores a receipt and an output that came with it, and reports whether the
// output is here. The two writes share what making them durable costs.
func (u *run) keep(rc *perigee.Receipt, receipt, car []byte) (kept bool) {
	d := u.r.cfg.Data
	var both sync.WaitGroup
	both.Go(func() {
		c, err := d.PutBlock(u.ctx, perigee.CodecDagCBOR, receipt)
		if err == nil {
			err = d.Pin(u.ctx, c, receiptOwner)
		}
		if err != nil {
			u.r.cfg.Log.Warn("keeping a receipt", "job", u.rec.ID, "err", err)
		}
	})
	if len(car) > 0 {
		both.Go(func() {
			roots, err := d.ImportCAR(u.ctx, bytes.NewReader(car), owner(u.rec.ID))
			if err != nil {
				u.r.cfg.Log.Warn("keeping an output", "job", u.rec.ID, "err", err)
			}
			kept = err == nil && len(roots) == 1 && roots[0] == rc.Result.Output
		})
	}
	both.Wait()
	return kept
}

// receiptOwner pins receipts, which outlive the results.
const receiptOwner = "receipt"

// checkReceipt says whether a receipt is the one that an execution was due.
func (u *run) checkReceipt(e *execRecord, rc *perigee.Receipt) error {
	const op = "requester.Receipt"
	switch {
	case rc.Provider != e.Provider:
		return perigee.E(op, perigee.Corrupt, "it names provider %s", rc.Provider)
	case rc.Requester != u.r.cfg.Peer:
		return perigee.E(op, perigee.Corrupt, "it names requester %s", rc.Requester)
	case rc.Execution != e.ID:
		return perigee.E(op, perigee.Corrupt, "it is for execution %q", rc.Execution)
	case rc.JobKey != e.Key:
		return perigee.E(op, perigee.Corrupt, "it is for job key %s, not %s", rc.JobKey, e.Key)
	case rc.Price > e.Price:
		return perigee.E(op, perigee.Corrupt, "it charges %s where %s was agreed", rc.Price, e.Price)
	case rc.Result.Size < 0 || rc.Result.Fuel < 0 || rc.BytesFetched < 0 || rc.BytesRead < 0:
		return perigee.E(op, perigee.Corrupt, "it has negative figures")
	}
	return rc.Check()
}

// distrust bars a provider from the rest of the job and gives up what it still
// runs. mu is held.
func (u *run) distrust(id perigee.PeerID, why string) {
	if _, known := u.broken[id]; known {
		return
	}
	u.broken[id] = why
	for e := range u.active {
		if e.Provider == id {
			u.close(e, perigee.ExecLost, &perigee.Fault{Kind: perigee.Corrupt, Message: "the provider is barred from the job: " + why})
			u.withdraw(e)
		}
	}
	for _, e := range u.order { // its votes are void: parts may want another
		if e.Provider == id && e.part.accepted == nil {
			u.touched[e.part], u.open[e.part] = struct{}{}, struct{}{}
		}
	}
	u.r.cfg.Log.Warn("provider barred from the job", "job", u.rec.ID, "provider", id, "why", why)
	u.unplan(id)
}

// outcome is what replicas are compared by.
func (e *exec) outcome() string {
	if e.State == perigee.ExecCompleted {
		return fmt.Sprintf("%s %d %d", e.Result.Output, e.Result.ExitCode, e.Result.Fuel)
	}
	return "fault " + string(e.Fault.Kind)
}

// maxTimeouts is how many executions of a part may run out of time: the first
// may have met a slow provider, the second tells of the program.
const maxTimeouts = 2

// judge decides on a part from its executions so far: it accepts a result,
// fails the job (and reports true), or leaves the part open. mu is held.
func (u *run) judge(p *part) (failed bool) {
	quorum := p.quorum
	replicate := quorum > 1
	tally := map[string][]*exec{}
	active, counted, timeouts := 0, 0, 0
	var last, first *exec
	for _, e := range p.execs {
		switch {
		case !e.State.Final():
			active++
		case u.counts(p, e), e.State == perigee.ExecFailed && deterministic(e.Fault) && !replicate:
			counted++
			tally[e.outcome()] = append(tally[e.outcome()], e)
			if first == nil || e.Finished < first.Finished {
				first = e
			}
			fallthrough
		default:
			last = e
			if e.Fault != nil && e.Fault.Kind == perigee.Timeout {
				timeouts++
			}
		}
	}
	for _, agree := range tally {
		if len(agree) < quorum {
			continue
		}
		// Without a quorum the first that ended counts, not any.
		slices.SortFunc(agree, func(a, b *exec) int { return cmp.Compare(a.Finished, b.Finished) })
		if first != nil && quorum == 1 && agree[0] != first {
			continue
		}
		u.remember(p, agree)
		u.disagree(p, agree)
		if agree[0].State == perigee.ExecCompleted {
			return u.accept(p, agree[0])
		}
		u.end(perigee.JobFailed, perigee.E("requester.Run", agree[0].Fault.Kind, "%s: %s", u.partName(p), agree[0].Fault.Message))
		return true
	}
	if u.job.Verify.Mode == "audit" && replicate {
		if p.copies = 2; len(tally) > 1 {
			p.copies = counted + 1 // results disagree: one provider more decides
		}
		u.open[p] = struct{}{}
	}
	limit := u.job.Attempts + p.copies - 1
	if timeouts >= maxTimeouts {
		limit = p.attempts // more time is what it needs, not another provider
	}
	if active > 0 || p.attempts < limit || p.planned {
		return false
	}
	switch {
	case last == nil:
		return false
	case replicate && counted > 0:
		u.end(perigee.JobFailed, perigee.E("requester.Run", perigee.Corrupt,
			"%s: %d results from %d executions and no %d of them agree: %s", u.partName(p), len(tally), counted, quorum, describe(tally)))
	default:
		u.end(perigee.JobFailed, perigee.E("requester.Run", last.Fault.Kind, "%s: failed %d times, last at provider %s: %s",
			u.partName(p), p.attempts, last.Provider, last.Fault.Message))
	}
	return true
}

// describe lists who said what, for an error.
func describe(tally map[string][]*exec) string {
	var lines []string
	for what, execs := range tally {
		s := what + " by"
		for _, e := range execs {
			s += " " + e.Provider.Short()
		}
		lines = append(lines, s)
	}
	sort.Strings(lines)
	return fmt.Sprint(lines)
}

func (u *run) partName(p *part) string {
	switch {
	case p.Merge:
		return "merge"
	case p.Label != "":
		return fmt.Sprintf("part %d (%s)", p.Index, p.Label)
	}
	return fmt.Sprintf("part %d", p.Index)
}

// disagree bars the providers whose result for a part differs from the one that
// the quorum agreed on.
func (u *run) disagree(p *part, agree []*exec) {
	if p.quorum < 2 {
		return
	}
	for _, e := range p.execs {
		if e.State == perigee.ExecCompleted && e.outcome() != agree[0].outcome() && e.Fault == nil {
			e.Fault = &perigee.Fault{Kind: perigee.Corrupt, Message: fmt.Sprintf(
				"its result differs from the one that %d providers agree on", p.quorum)}
			u.write(e.dbKey(), &e.execRecord)
			u.distrust(e.Provider, fmt.Sprintf("its result for %s differs from the quorum's", u.partName(p)))
		}
	}
}

// accept takes an execution's result as the part's. It reports whether that
// ends the job.
func (u *run) accept(p *part, e *exec) bool {
	if e.Result.ExitCode != 0 {
		e.Accepted, p.accepted = true, &e.execRecord
		u.write(e.dbKey(), &e.execRecord)
		u.logsComplete(p)
		u.rec.Output = e.Result.Output
		u.end(perigee.JobFailed, perigee.E("requester.Run", perigee.Invalid, "%s: the program ended with exit code %d", u.partName(p), e.Result.ExitCode))
		return true
	}
	e.Accepted, p.accepted = true, &e.execRecord
	if !p.Merge {
		u.finished++
	}
	u.write(e.dbKey(), &e.execRecord)
	if !e.Reused {
		u.write([]byte(reusePrefix+p.key.String()), &reuseRecord{Receipt: e.Receipt, Checked: u.checked(p)})
	}
	u.logsComplete(p)
	u.withdrawOthers(p, e)
	return false
}

// withdrawOthers cancels executions of a part that has its result.
func (u *run) withdrawOthers(p *part, winner *exec) {
	for _, e := range p.execs {
		if e == winner || e.State.Final() {
			continue
		}
		u.close(e, perigee.ExecCancelled, &perigee.Fault{Kind: perigee.Cancelled, Message: "another execution of the part was accepted first"})
		u.withdraw(e)
	}
}

// withdraw asks the provider of an execution to stop it, without waiting.
func (u *run) withdraw(e *exec) {
	provider, req := e.Provider, &perigee.CancelRequest{Job: u.rec.ID, Executions: []string{e.ID}, Release: true}
	u.r.wg.Add(1)
	go func() {
		defer u.r.wg.Done()
		ctx, cancel := context.WithTimeout(u.r.ctx, u.r.cfg.BidTimeout)
		defer cancel()
		_, _ = u.r.cfg.Dial(provider).Cancel(ctx, req)
	}()
}

// reuse answers a part from an earlier accepted receipt if the job allows it
// and the result is still to be had.
func (u *run) reuse(p *part) {
	if u.job.Reuse == "off" || p.accepted != nil || len(p.execs) > 0 {
		return
	}
	b, err := u.r.cfg.DB.Get([]byte(reusePrefix + p.key.String()))
	if err != nil {
		return
	}
	var rec reuseRecord
	if perigee.Decode(b, &rec) != nil || rec.Checked < u.demanded() {
		return
	}
	rc, err := u.r.Receipt(u.ctx, rec.Receipt)
	if err != nil || rc.Check() != nil || rc.JobKey != p.key || !u.have(rc) {
		return
	}
	now := time.Now().UnixMicro()
	e := u.addExec(p, execRecord{
		ID: fmt.Sprintf("%s-%d-reused", u.rec.ID, p.Index), Job: u.rec.ID, Part: p.Index, Merge: p.Merge, Label: p.Label,
		Provider: rc.Provider, State: perigee.ExecCompleted, Reused: true, Key: p.key, Result: rc.Result,
		Receipt: rec.Receipt, Leased: now, Started: now, Finished: now,
	})
	u.hints[rc.Result.Output] = appendPeer(u.hints[rc.Result.Output], rc.Provider)
	e.kept = true
	if !p.Merge {
		u.rec.Reused++
	}
	u.accept(p, e)
}

// checked says how well the result that a part is about to take was checked.
func (u *run) checked(p *part) int {
	switch {
	case p.quorum > 1:
		return checkedByPeers
	case u.job.Verify.Mode == "audit" && !p.unaudited:
		return checkedByDraw
	}
	return checkedNot
}

// demanded says how well an earlier result must have been checked to answer this
// job: no less than a new one would be.
func (u *run) demanded() int {
	switch {
	case u.job.Verify.Mode == "replicate" || u.job.Reuse == "audited":
		return checkedByPeers
	case u.job.Verify.Mode == "audit":
		return checkedByDraw
	}
	return checkedNot
}

// have makes sure that a receipt's output is here, if need be by fetching it
// from who made it, and pins it for this job.
func (u *run) have(rc *perigee.Receipt) bool {
	out := rc.Result.Output
	in := perigee.PartInput{CID: out, Size: rc.Result.Size}
	if n, err := u.r.cfg.Data.LocalBytes(u.ctx, in); err != nil || n < rc.Result.Size || rc.Result.Size == 0 {
		ctx, cancel := context.WithTimeout(u.ctx, u.r.cfg.BidTimeout)
		defer cancel()
		if _, err := u.r.cfg.Data.Fetch(ctx, in, []perigee.PeerID{rc.Provider}, nil); err != nil {
			return false
		}
	}
	return u.r.cfg.Data.Pin(u.ctx, out, owner(u.rec.ID)) == nil
}

// conclude makes the merge part once all parts have results, or the output once
// nothing is left to run. mu is held.
func (u *run) conclude() {
	var merge *part
	if n := len(u.parts); n > u.rec.Parts {
		merge = u.parts[n-1]
	}
	switch {
	case merge != nil && merge.accepted != nil:
		u.finish(merge.accepted.Result.Output)
	case merge != nil:
		u.advance(time.Now())
	case u.job.Merge == nil && u.rec.Parts == 1:
		u.finishSingle(u.parts[0])
	case !u.placing:
		u.combine()
	}
}

// combine makes the directory of all outputs, away from the loop, and goes on
// to the merge or the end.
func (u *run) combine() {
	entries := make([]data.Named, u.rec.Parts)
	var size int64
	for i, p := range u.parts[:u.rec.Parts] {
		res := p.accepted.Result
		entries[i] = data.Named{Name: strconv.Itoa(i), CID: res.Output}
		size += res.Size
	}
	u.placing = true
	go func() {
		c, err := u.r.cfg.Data.Combine(u.ctx, entries, owner(u.rec.ID))
		var module perigee.CID
		if err == nil && u.job.Merge != nil {
			ctx, cancel := context.WithTimeout(u.ctx, u.r.cfg.FindTimeout)
			defer cancel()
			module, err = u.r.module(ctx, u.job.Merge.Module)
		}
		u.post(func() {
			u.placing = false
			switch {
			case err != nil:
				u.end(perigee.JobFailed, perigee.E("requester.Merge", perigee.KindOf(err), err, "merging the parts' outputs"))
			case u.job.Merge == nil:
				u.finish(c)
			default:
				u.addMerge(module, c, size)
			}
		})
	}()
}

// mergeMount is where a merge finds the outputs, each under its part's index.
const mergeMount = "/parts"

func (u *run) addMerge(module, outputs perigee.CID, size int64) {
	holders := []perigee.PeerID{u.r.cfg.Peer}
	for _, p := range u.parts {
		holders = appendPeer(holders, p.accepted.Provider)
	}
	u.hints[outputs] = holders
	u.hints[module] = appendPeer(u.hints[module], u.r.cfg.Peer)
	rec := &partRecord{Index: u.rec.Parts, Label: "merge", Merge: true, Part: perigee.Part{
		Engine: u.r.cfg.Engine, Module: module, Args: u.job.Merge.Args, Env: u.job.Merge.Env, Workdir: u.job.Merge.Workdir,
		Inputs:  []perigee.PartInput{{Mount: mergeMount, CID: outputs, Size: size}},
		Outputs: u.job.Outputs, Limits: limitsOf(&u.job),
	}}
	u.rec.Hints = append(u.rec.Hints, perigee.HolderHint{CID: outputs, Peers: holders})
	u.write(partKey(u.rec.ID, rec.Index), rec)
	u.saveJob()
	u.reuse(u.addPart(rec))
}

// finishSingle completes a job of one part, at once if its output is kept.
func (u *run) finishSingle(p *part) {
	for _, e := range p.execs {
		if e.Accepted && e.kept {
			u.rec.Output = e.Result.Output
			u.end(perigee.JobCompleted, nil)
			return
		}
	}
	u.finish(p.accepted.Result.Output)
}

// finish completes the job; the output is pinned when all of it is here.
func (u *run) finish(output perigee.CID) {
	u.ending = true
	u.placing = true
	go func() {
		err := u.r.cfg.Data.Pin(u.ctx, output, owner(u.rec.ID))
		if err != nil {
			u.r.cfg.Log.Debug("the output stays at its providers", "job", u.rec.ID, "err", err)
		}
		u.post(func() {
			u.ending = false
			u.rec.Output = output
			u.end(perigee.JobCompleted, nil)
		})
	}()
}
