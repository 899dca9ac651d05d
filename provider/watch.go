package provider

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/perigee-network/perigee"
)

// maxPendingLog bounds the output that waits for one slow watcher. What it
// misses is in the execution's output, so nothing is lost.
const maxPendingLog = 1 << 20

// watcher is one open watch. Changes of state are remembered by execution and
// read when sent, so a slow watcher costs memory for IDs only.
type watcher struct {
	wake    chan struct{} // capacity 1
	dirty   []execKey
	marked  map[execKey]bool
	logs    []perigee.Event
	logSize int
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// announce tells its requester's watchers that an execution changed.
func (p *Provider) announce(k execKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watch[k.requester] {
		if !w.marked[k] {
			w.marked[k] = true
			w.dirty = append(w.dirty, k)
		}
		w.poke()
	}
}

// logged passes output of a running guest to its requester's watchers.
func (p *Provider) logged(x *execution, stream int, b []byte) {
	at := x.logs[stream-1].append(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watch[x.key.requester] {
		if w.logSize+len(b) > maxPendingLog {
			continue
		}
		w.logSize += len(b)
		w.logs = append(w.logs, perigee.Event{Kind: perigee.EventLog, Execution: x.key.id,
			Stream: stream, Offset: at, Data: bytes.Clone(b)})
		w.poke()
	}
}

// Watch sends the events of a requester's executions until ctx ends or send
// fails: the state of each named execution first, then every change. A named execution
// that is unknown here is told as lost.
func (p *Provider) Watch(ctx context.Context, from perigee.PeerID, req *perigee.WatchRequest, send func(*perigee.Event) error) error {
	w := &watcher{wake: make(chan struct{}, 1), marked: map[execKey]bool{}}
	p.mu.Lock()
	if p.watch[from] == nil {
		p.watch[from] = map[*watcher]struct{}{}
	}
	p.watch[from][w] = struct{}{}
	for _, id := range req.Executions {
		k := execKey{from, id}
		w.marked[k] = true
		w.dirty = append(w.dirty, k)
		if x := p.active[k]; x != nil {
			for s := range x.logs {
				if at, tail := x.logs[s].snapshot(); len(tail) > 0 {
					w.logs = append(w.logs, perigee.Event{Kind: perigee.EventLog, Execution: id, Stream: s + 1, Offset: at, Data: tail})
					w.logSize += len(tail)
				}
			}
		}
	}
	w.poke()
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watch[from], w)
		if len(p.watch[from]) == 0 {
			delete(p.watch, from)
		}
	}()
	return p.feed(ctx, w, send)
}

// feed sends what is pending whenever there is something, and beats otherwise.
func (p *Provider) feed(ctx context.Context, w *watcher, send func(*perigee.Event) error) error {
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	// The first beat says that the watch is open: what is leased from now on is told.
	if err := send(&perigee.Event{Kind: perigee.EventBeat}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ctx.Done():
			return perigee.E("provider.Watch", perigee.Unavailable, "the provider is stopping")
		case <-beat.C:
			if err := send(&perigee.Event{Kind: perigee.EventBeat}); err != nil {
				return err
			}
			continue
		case <-w.wake:
		}
		p.mu.Lock()
		logs, dirty := w.logs, w.dirty
		w.logs, w.dirty, w.logSize = nil, nil, 0
		clear(w.marked)
		p.mu.Unlock()
		for i := range logs {
			if err := send(&logs[i]); err != nil {
				return err
			}
		}
		for _, k := range dirty {
			ev, err := p.stateEvent(ctx, k)
			if err != nil {
				return err
			}
			if err := send(ev); err != nil {
				return err
			}
		}
	}
}

// stateEvent tells where an execution stands now.
func (p *Provider) stateEvent(ctx context.Context, k execKey) (*perigee.Event, error) {
	ev := &perigee.Event{Kind: perigee.EventState, Execution: k.id}
	p.mu.Lock()
	x := p.active[k]
	running := x != nil && x.running
	p.mu.Unlock()
	r, err := p.load(k)
	if errors.Is(err, perigee.NotFound) {
		ev.State = perigee.ExecLost
		ev.Fault = &perigee.Fault{Kind: perigee.NotFound, Message: "the provider does not know this execution"}
		return ev, nil
	}
	if err != nil {
		return nil, err
	}
	ev.State, ev.Fault, ev.Receipt = r.State, r.Fault, r.Receipt
	if r.State == perigee.ExecLeased && running {
		ev.State = perigee.ExecRunning
	}
	if r.Output.Defined() && r.OutputSize <= inlineOutput {
		var car bytes.Buffer
		if err := p.cfg.Data.ExportCAR(ctx, r.Output, &car); err == nil && car.Len() <= 2*inlineOutput {
			ev.Output = car.Bytes()
		}
	}
	return ev, nil
}
