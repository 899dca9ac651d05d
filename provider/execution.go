package provider

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/wasm"
)

// execution is what memory holds of an execution that is not final. Its fields
// below mu belong to Provider.mu.
type execution struct {
	key      execKey
	job      string
	accepted int64
	cpu      int
	memory   int64
	logs     [2]logTail // stdout, stderr

	stop      context.CancelFunc // set while it runs
	cancelled bool               // by the requester
	running   bool               // the guest has started
}

func newExecution(r *record) *execution {
	return &execution{key: r.key(), job: r.Job, accepted: r.Accepted, cpu: 1, memory: r.Part.Limits.Memory}
}

// dispatch starts queued executions while resources last; p.mu is held. Order
// of acceptance holds: a small execution does not overtake a large one, so that
// the large one starts at all.
func (p *Provider) dispatch() {
	if !p.started || p.ctx.Err() != nil {
		return
	}
	for len(p.queue) > 0 {
		x := p.queue[0]
		if p.used.CPU+x.cpu > p.cfg.Resources.CPU || p.used.Memory+x.memory > p.cfg.Resources.Memory {
			return
		}
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.used.CPU += x.cpu
		p.used.Memory += x.memory
		ctx, stop := context.WithCancel(p.ctx)
		x.stop = stop
		p.wg.Add(1)
		go p.run(ctx, x)
	}
}

// run carries one execution from its lease to its end and writes that end. When
// the provider closes in between, nothing is written: New takes it up again.
func (p *Provider) run(ctx context.Context, x *execution) {
	defer p.wg.Done()
	began := time.Now()
	r, err := p.load(x.key)
	var receipt *perigee.Receipt
	var lease *perigee.Lease
	if err == nil {
		lease, err = p.loadLease(r.Requester, r.Lease)
	}
	if err == nil {
		receipt, err = p.perform(ctx, x, r, lease)
	}
	p.mu.Lock()
	x.stop()
	cancelled := x.cancelled
	p.used.CPU -= x.cpu
	p.used.Memory -= x.memory
	p.mean += (time.Since(began) - p.mean) / 8
	p.mu.Unlock()

	closing := p.ctx.Err() != nil && receipt == nil
	if !closing && r != nil {
		if err := p.conclude(r, lease, receipt, err, cancelled); err != nil {
			p.cfg.Log.Error("recording the end of an execution", "execution", x.key.id, "err", err)
		}
	}
	p.mu.Lock()
	delete(p.active, x.key)
	p.dispatch()
	p.mu.Unlock()
	if !closing {
		p.announce(x.key)
	}
}

// conclude writes how an execution ended.
func (p *Provider) conclude(r *record, lease *perigee.Lease, receipt *perigee.Receipt, err error, cancelled bool) error {
	switch {
	case cancelled:
		if receipt != nil {
			_ = p.cfg.Data.Unpin(p.ctx, receipt.Result.Output, r.key().owner())
		}
		return p.finish(r, perigee.ExecCancelled, perigee.E("provider.Run", perigee.Cancelled, "withdrawn by the requester"))
	case err != nil:
		return p.finish(r, perigee.ExecFailed, err)
	}
	enc, err := perigee.Encode(receipt)
	if err != nil {
		return err
	}
	r.State, r.Receipt = perigee.ExecCompleted, enc
	r.Output, r.OutputSize = receipt.Result.Output, receipt.Result.Size
	keep := min(time.Duration(lease.Retention)*time.Millisecond, maxRetention)
	r.Expires = time.Now().Add(keep).UnixMilli()
	return p.end(r)
}

// finish writes the end of an execution that has no result.
func (p *Provider) finish(r *record, state perigee.ExecutionState, cause error) error {
	r.State, r.Fault = state, perigee.FaultOf(cause)
	r.Expires = time.Now().Add(time.Hour).UnixMilli()
	if err := p.end(r); err != nil {
		return err
	}
	p.announce(r.key())
	return nil
}

// perform fetches what is missing, runs the guest, stores its output and signs
// the receipt.
func (p *Provider) perform(ctx context.Context, x *execution, r *record, lease *perigee.Lease) (*perigee.Receipt, error) {
	holders := make(map[perigee.CID][]perigee.PeerID, len(lease.Holders))
	for _, h := range lease.Holders {
		holders[h.CID] = h.Peers
	}
	from := func(c perigee.CID) []perigee.PeerID {
		if peers := holders[c]; len(peers) > 0 {
			return peers
		}
		return []perigee.PeerID{r.Requester}
	}
	cids := []perigee.CID{r.Part.Module}
	for _, in := range r.Part.Inputs {
		cids = append(cids, in.CID)
	}
	release := p.cfg.Data.Hold(cids...)
	defer release()

	started := time.Now()
	mounts, fetched, err := p.gather(ctx, r.Part.Inputs, from)
	if err != nil {
		return nil, placeFault(err)
	}
	p.mu.Lock()
	x.running = true
	p.mu.Unlock()
	p.announce(x.key)

	key, err := r.Part.Key()
	if err != nil {
		return nil, err
	}
	task := p.task(x, r, lease, key, mounts, from)
	out, err := p.cfg.Engine.Run(ctx, task)
	if out != nil {
		defer out.Close()
	}
	if err != nil {
		if out != nil { // what it printed helps who wrote it
			if added, err := p.store(ctx, x.key, out); err == nil {
				r.Output, r.OutputSize = added.CID, added.Size
			}
		}
		return nil, err
	}
	added, err := p.store(ctx, x.key, out)
	if err != nil {
		return nil, placeFault(err)
	}
	receipt := &perigee.Receipt{
		Version: 1, JobKey: key, Part: r.Part,
		Result:    perigee.Result{Output: added.CID, Size: added.Size, ExitCode: out.ExitCode, Fuel: out.Fuel},
		Requester: r.Requester, Provider: p.cfg.Peer, Class: wasm.Class(),
		Lease: r.Lease, Execution: r.ID, Price: lease.Price,
		BytesRead: max(out.BytesRead-fetched, 0), BytesFetched: fetched,
		CPUMicros: out.CPU.Microseconds(), PeakMemory: out.PeakMemory,
		Started: started.UnixMicro(), Finished: time.Now().UnixMicro(),
	}
	return receipt, perigee.Sign(receipt, p.cfg.Sign)
}

// gather makes every input local and returns the trees to mount.
func (p *Provider) gather(ctx context.Context, inputs []perigee.PartInput, from func(perigee.CID) []perigee.PeerID) ([]wasm.Mount, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	var fetched int64
	mounts := make([]wasm.Mount, 0, len(inputs))
	for _, in := range inputs {
		got, err := p.cfg.Data.Fetch(ctx, in, from(in.CID), nil)
		fetched += got.Bytes
		if err != nil {
			return nil, fetched, err
		}
		tree, err := p.cfg.Data.Tree(ctx, in)
		if err != nil {
			return nil, fetched, err
		}
		mounts = append(mounts, wasm.Mount{Path: in.Mount, Tree: tree})
	}
	return mounts, fetched, nil
}

// task describes a part to the engine.
func (p *Provider) task(x *execution, r *record, lease *perigee.Lease, key perigee.CID, mounts []wasm.Mount, from func(perigee.CID) []perigee.PeerID) wasm.Task {
	t := wasm.Task{
		Module: r.Part.Module, Args: r.Part.Args, Env: r.Part.Env, Workdir: r.Part.Workdir,
		Seed: seedOf(key), Mounts: mounts, Outputs: r.Part.Outputs, Limits: r.Part.Limits,
		Timeout: time.Duration(lease.Timeout) * time.Millisecond,
		Load: func(ctx context.Context) (io.ReadCloser, error) {
			if _, err := p.cfg.Data.Fetch(ctx, perigee.PartInput{CID: r.Part.Module}, from(r.Part.Module), nil); err != nil {
				return nil, placeFault(err)
			}
			return p.cfg.Data.OpenFile(ctx, r.Part.Module)
		},
	}
	if lease.StreamLogs {
		t.Stdout = func(b []byte) { p.logged(x, 1, b) }
		t.Stderr = func(b []byte) { p.logged(x, 2, b) }
	}
	return t
}

// seedOf is the digest inside a job key, from which the guest's clock and
// randomness come.
func seedOf(key perigee.CID) (seed [32]byte) {
	b := key.Cid().Hash()
	copy(seed[:], b[len(b)-32:])
	return seed
}

// store adds the output entries as one directory, pinned for the requester.
func (p *Provider) store(ctx context.Context, k execKey, out *wasm.Outcome) (data.Added, error) {
	entries := func(yield func(data.Entry, error) bool) {
		for _, e := range out.Entries {
			d := data.Entry{Path: e.Path, Kind: e.Kind, Size: e.Size, Target: e.Target, Open: e.Open}
			if p.cfg.Alter != nil {
				d = p.cfg.Alter(d)
			}
			if !yield(d, nil) {
				return
			}
		}
	}
	return p.cfg.Data.AddEntries(ctx, entries, data.AddOptions{Pin: k.owner()})
}

// placeFault turns a fault of this place, such as a full disk or an unreachable
// holder, into one that the requester retries elsewhere: to it, Invalid and
// Exhausted mean that the guest itself broke a rule and would do so anywhere.
func placeFault(err error) error {
	switch perigee.KindOf(err) {
	case perigee.Invalid, perigee.Exhausted, perigee.Internal:
		return perigee.E("provider.Run", perigee.Unavailable, err, "this provider could not")
	}
	return err
}

// logTail keeps the offset of a stream and its newest bytes for watchers.
type logTail struct {
	mu   sync.Mutex
	end  int64
	tail []byte // the last maxTail bytes before end
}

const maxTail = 64 << 10

// append adds b and returns the offset at which it begins.
func (l *logTail) append(b []byte) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.end
	l.end += int64(len(b))
	l.tail = append(l.tail, b...)
	if len(l.tail) > 2*maxTail {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-maxTail:]...)
	}
	return at
}

// snapshot returns a copy of the newest bytes and the offset of the first.
func (l *logTail) snapshot() (int64, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end - int64(len(l.tail)), bytes.Clone(l.tail)
}
