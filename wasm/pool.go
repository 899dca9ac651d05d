package wasm

import (
	"container/list"
	"context"
	"log/slog"
	"runtime"
	"sync"

	"github.com/perigee-network/perigee"
)

// recycleAfter is how many executions a worker serves before it is replaced, so
// that nothing that leaks can pile up.
const recycleAfter = 5000

// pool keeps worker processes. At most size guests run at once; others wait in
// the order in which they came. One idle worker is kept ahead of demand, so
// that a small execution does not pay for the start of a process.
type pool struct {
	size    int
	command []string
	cache   string
	log     *slog.Logger
	spawn   chan func() // runs on a thread that lives as long as the pool

	mu       sync.Mutex
	idle     []*process
	all      map[*process]string // to their purpose
	starting int                 // run workers on their way
	starts   sync.WaitGroup
	running  int        // slots taken
	queue    *list.List // of chan struct{}: who waits for a slot
	closed   bool
	ready    readyMessage
}

func newPool(size int, command []string, cache string, log *slog.Logger) *pool {
	p := &pool{size: size, command: command, cache: cache, log: log,
		spawn: make(chan func()), all: map[*process]string{}, queue: list.New()}
	go func() {
		// PDEATHSIG fires when the thread that forked ends, and the Go runtime
		// ends threads as it likes, except a locked one.
		runtime.LockOSThread()
		for fn := range p.spawn {
			fn()
		}
	}()
	return p
}

// startProcess starts a worker from the long-lived thread.
func (p *pool) startProcess(purpose string) (*process, error) {
	type answer struct {
		w   *process
		err error
	}
	c := make(chan answer, 1)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	p.starts.Add(1)
	defer p.starts.Done()
	if purpose == purposeRun {
		p.starting++
	}
	p.mu.Unlock()
	p.spawn <- func() {
		w, err := launch(p.command, purpose, p.cache, p.log)
		c <- answer{w, err}
	}
	a := <-c
	if a.err == nil {
		a.err = a.w.await()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if purpose == purposeRun {
		p.starting--
	}
	if a.err != nil {
		return nil, a.err
	}
	if p.closed {
		a.w.kill()
		return nil, errClosed
	}
	p.all[a.w] = purpose
	if purpose == purposeRun && p.ready.Sandbox == "" {
		p.ready = a.w.ready
		if p.ready.Missing != "" {
			p.log.Warn("WebAssembly workers are less confined than they should be: this kernel lacks "+p.ready.Missing, "sandbox", p.ready.Sandbox)
		}
	}
	return a.w, nil
}

var errClosed = perigee.E("wasm.Run", perigee.Unavailable, "the WebAssembly engine is closed")

// acquire waits for a slot and returns an idle or a new worker.
func (p *pool) acquire(ctx context.Context) (*process, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	for len(p.idle) > 0 {
		w := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		select {
		case <-w.exited: // killed while idle
			p.drop(w)
			continue
		default:
		}
		short := len(p.idle) == 0 && p.runners() < p.size
		p.mu.Unlock()
		if short {
			go p.warm()
		}
		return w, nil
	}
	p.mu.Unlock()
	w, err := p.startProcess(purposeRun)
	if err != nil {
		p.leave()
		return nil, perigee.E("wasm.Run", perigee.Unavailable, err, "no worker process")
	}
	return w, nil
}

// enter takes one of the slots, in the order of the calls.
func (p *pool) enter(ctx context.Context) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errClosed
	}
	if p.running < p.size && p.queue.Len() == 0 {
		p.running++
		p.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	place := p.queue.PushBack(turn)
	p.mu.Unlock()
	select {
	case <-turn: // the slot was handed over
		p.mu.Lock()
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.leave()
			return errClosed
		}
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	select {
	case <-turn: // both at once: give the slot on
		p.mu.Unlock()
		p.leave()
	default:
		p.queue.Remove(place)
		p.mu.Unlock()
	}
	return perigee.E("wasm.Run", contextKind(ctx), context.Cause(ctx), "stopped while waiting for one of %d WebAssembly workers", p.size)
}

// leave frees a slot or hands it to who waits longest.
func (p *pool) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if front := p.queue.Front(); front != nil {
		close(p.queue.Remove(front).(chan struct{}))
		return
	}
	p.running--
}

// release ends the use of a worker. A healthy one goes back to the idle ones;
// another is replaced.
func (p *pool) release(w *process, healthy bool) {
	w.runs++
	p.mu.Lock()
	if healthy && w.runs < recycleAfter && !p.closed {
		p.idle = append(p.idle, w)
		p.mu.Unlock()
	} else {
		p.drop(w)
		closed := p.closed
		p.mu.Unlock()
		w.kill()
		if !closed {
			go p.warm()
		}
	}
	p.leave()
}

// drop forgets a worker. The caller holds the lock.
func (p *pool) drop(w *process) { delete(p.all, w) }

// discard ends a worker that is not one of the slots.
func (p *pool) discard(w *process) {
	p.mu.Lock()
	p.drop(w)
	p.mu.Unlock()
	w.kill()
}

// warm starts a worker ahead of demand.
func (p *pool) warm() {
	p.mu.Lock()
	enough := p.closed || p.runners() >= p.size || len(p.idle) > 0
	p.mu.Unlock()
	if enough {
		return
	}
	w, err := p.startProcess(purposeRun)
	if err != nil {
		if err != error(errClosed) {
			p.log.Warn("cannot start a WebAssembly worker", "error", err)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.runners() > p.size { // others came meanwhile
		p.drop(w)
		w.kill()
		return
	}
	p.idle = append(p.idle, w)
}

// runners counts the workers for guests. The caller holds the lock.
func (p *pool) runners() int {
	n := p.starting
	for _, purpose := range p.all {
		if purpose == purposeRun {
			n++
		}
	}
	return n
}

// pids returns the process IDs of the workers that run guests.
func (p *pool) pids() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pids []int
	for w, purpose := range p.all {
		if purpose == purposeRun {
			pids = append(pids, w.pid)
		}
	}
	return pids
}

// close kills all workers and wakes all who wait.
func (p *pool) close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	var dead []*process
	for w := range p.all {
		dead = append(dead, w)
	}
	p.all, p.idle = map[*process]string{}, nil
	for front := p.queue.Front(); front != nil; front = p.queue.Front() {
		p.running++ // the slot that leave takes back
		close(p.queue.Remove(front).(chan struct{}))
	}
	p.mu.Unlock()
	for _, w := range dead {
		w.kill()
		<-w.exited
	}
	go func() { // a start under way may still want the thread
		p.starts.Wait()
		close(p.spawn)
	}()
}
