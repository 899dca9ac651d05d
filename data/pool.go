package data

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/perigee-network/perigee"
)

// The sizes of requests: a batch is what one request asks of one holder.
const (
	streamsPerHolder = 2
	holdersAtOnce    = 8
	batchBytes       = 16 << 20
	guessedBlock     = 64 << 10 // for blocks of unknown size
)

// slowest is the least rate, in bytes per second, at which a frame must arrive
// once it has begun; the idle limit comes on top.
const slowest = 32 << 10

// due is a block asked of a holder, or two, and not yet here.
type due struct {
	want
	since time.Time
	by    []perigee.PeerID // whom it is asked of
}

// pool spreads the blocks wanted over several holders. A holder that stalls,
// fails or lies is dropped and what it owes goes to the others; when nothing is
// left to ask for, an idle holder is asked for what another is slow to send.
type pool struct {
	f       *fetch
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	queue   []want
	due     map[string]*due
	missing map[perigee.PeerID]map[string]bool
	holders int
	err     error // of the store: ends everything
}

// fromHolders fetches what it can from the holders and returns the rest. An
// error is the store's or ctx's, not a holder's.
func (f *fetch) fromHolders(ctx context.Context, wants []want, holders []perigee.PeerID) ([]want, error) {
	p := &pool{f: f, changed: make(chan struct{}), queue: wants, due: map[string]*due{},
		missing: map[perigee.PeerID]map[string]bool{}}
	var g errgroup.Group
	g.SetLimit(holdersAtOnce * streamsPerHolder)
	self := f.s.net.self()
	for _, h := range holders {
		f.mu.Lock()
		skip := f.dropped[h] || h == self
		f.mu.Unlock()
		if skip {
			continue
		}
		p.mu.Lock()
		p.holders++
		p.mu.Unlock()
		hctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for range streamsPerHolder {
			g.Go(func() error {
				if err := p.work(hctx, h); err != nil {
					f.note(h, err.Error(), true)
					cancel() // its other stream too
				}
				return nil
			})
		}
	}
	_ = g.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.due {
		p.queue = append(p.queue, d.want)
	}
	if p.err == nil && ctx.Err() != nil && len(p.queue) > 0 && context.Cause(ctx) == context.Canceled {
		p.err = ctxError("data.Fetch", ctx)
	}
	return p.queue, p.err
}

// signal wakes everyone who waits. The caller holds mu.
func (p *pool) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// work asks one holder over one stream for batch after batch. An error says why
// the holder is given up.
func (p *pool) work(ctx context.Context, h perigee.PeerID) error {
	defer p.giveUp(h)
	var c *holderStream
	defer func() {
		if c != nil {
			c.st.Reset()
		}
	}()
	for {
		batch, ok := p.take(ctx, h)
		if !ok {
			if c != nil {
				c.st.Close()
				c = nil
			}
			return nil
		}
		if c == nil {
			var err error
			if c, err = p.f.s.net.open(ctx, h); err != nil {
				if ctx.Err() == nil {
					p.f.s.log.Debug("a holder could not be reached", "peer", h, "cause", err)
				}
				if strings.Contains(err.Error(), "protocols not supported") {
					return errors.New("does not speak " + Protocol)
				}
				return errors.New("could not be reached")
			}
			st := c.st
			defer context.AfterFunc(ctx, func() { st.Reset() })()
		}
		if err := p.ask(c, h, batch); err != nil {
			if ctx.Err() != nil {
				return errors.New("was interrupted")
			}
			p.f.s.log.Warn("a holder was dropped", "peer", h, "cid", p.f.root.String(), "cause", err)
			return reason(err)
		}
	}
}

// reason says in a few words why a holder was dropped.
func reason(err error) error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, perigee.Corrupt):
		return errors.New("sent corrupt data")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("stalled")
	}
	return errors.New("failed (" + err.Error() + ")")
}

// take picks a batch for a holder, waiting while others may yet fail to deliver.
// It returns false when there is nothing more for this holder to do.
func (p *pool) take(ctx context.Context, h perigee.PeerID) ([]want, bool) {
	for {
		p.mu.Lock()
		batch := p.pick(h)
		if len(batch) == 0 && p.err == nil && len(p.due) > 0 {
			batch = p.hedge(h)
		}
		finished := p.err != nil || ctx.Err() != nil || (len(batch) == 0 && len(p.due) == 0)
		changed := p.changed
		p.mu.Unlock()
		if finished {
			return nil, false
		}
		if len(batch) > 0 {
			return batch, true
		}
		t := time.NewTimer(hedgeAfter / 4)
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// pick takes wants of one sort from the queue. The caller holds mu.
func (p *pool) pick(h perigee.PeerID) []want {
	limit := p.share()
	var batch, rest []want
	bytes := int64(0)
	lacks := p.missing[h]
	now := time.Now()
	for i, w := range p.queue {
		if len(batch) >= maxWant || (len(batch) > 0 && bytes >= limit) {
			rest = append(rest, p.queue[i:]...)
			break
		}
		hash := string(w.cid.Hash())
		if lacks[hash] || (len(batch) > 0 && batch[0].dir != w.dir) {
			rest = append(rest, w)
			continue
		}
		batch = append(batch, w)
		bytes += guess(w)
		p.due[hash] = &due{want: w, since: now, by: []perigee.PeerID{h}}
	}
	p.queue = rest
	return batch
}

func guess(w want) int64 {
	if w.size > 0 {
		return w.size
	}
	return guessedBlock
}

// share is how many bytes a batch may have, so that the last ones are spread
// over all holders. The caller holds mu.
func (p *pool) share() int64 {
	total := int64(0)
	for _, w := range p.queue {
		total += guess(w)
		if total > batchBytes*int64(p.holders*streamsPerHolder*2) {
			return batchBytes
		}
	}
	return max(total/int64(max(p.holders, 1)*streamsPerHolder), 1<<20)
}

// hedge takes what another holder owes for long. The caller holds mu.
func (p *pool) hedge(h perigee.PeerID) []want {
	var batch []want
	lacks := p.missing[h]
	for hash, d := range p.due {
		if len(d.by) > 1 || d.by[0] == h || lacks[hash] || time.Since(d.since) < hedgeAfter {
			continue
		}
		if len(batch) > 0 && batch[0].dir != d.dir {
			continue
		}
		d.by = append(d.by, h)
		if batch = append(batch, d.want); len(batch) >= 16 {
			break
		}
	}
	return batch
}

// arrived takes a block off the list; false says that it came already.
func (p *pool) arrived(hash string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due[hash] == nil {
		return false
	}
	delete(p.due, hash)
	if len(p.due) == 0 {
		p.signal()
	}
	return true
}

// absent records what a holder said it lacks and gives it to the others.
func (p *pool) absent(h perigee.PeerID, wants []want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.missing[h]
	if m == nil {
		m = map[string]bool{}
		p.missing[h] = m
	}
	for _, w := range wants {
		hash := string(w.cid.Hash())
		m[hash] = true
		p.release(h, hash)
	}
	p.signal()
}

// again puts back what a holder did not get to send.
func (p *pool) again(h perigee.PeerID, wants []want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range wants {
		p.release(h, string(w.cid.Hash()))
	}
	p.signal()
}

// release ends a holder's debt of a block; when nobody else owes it, it goes
// back to the queue. The caller holds mu.
func (p *pool) release(h perigee.PeerID, hash string) {
	d := p.due[hash]
	if d == nil {
		return
	}
	d.by = slices.DeleteFunc(d.by, func(q perigee.PeerID) bool { return q == h })
	if len(d.by) == 0 {
		delete(p.due, hash)
		p.queue = append(p.queue, d.want)
	}
}

// giveUp puts back all that a holder owes.
func (p *pool) giveUp(h perigee.PeerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for hash := range p.due {
		p.release(h, hash)
	}
	p.signal()
}

// holderStream is an open stream to a holder.
type holderStream struct {
	st network.Stream
	r  *bufio.Reader
	w  *bufio.Writer
}

// open opens a stream to a holder, connecting if need be.
func (x *exchange) open(ctx context.Context, h perigee.PeerID) (*holderStream, error) {
	id, err := peer.Decode(string(h))
	if err != nil {
		return nil, perigee.E("data.Fetch", perigee.Invalid, err, "%q is no peer", string(h))
	}
	ctx, cancel := context.WithTimeout(ctx, x.s.cfg.Idle)
	defer cancel()
	st, err := x.host.NewStream(network.WithAllowLimitedConn(ctx, "data"), id, Protocol)
	if err != nil {
		return nil, err
	}
	return &holderStream{st, bufio.NewReaderSize(st, 64<<10), bufio.NewWriterSize(st, 16<<10)}, nil
}

// ask sends one request and takes in the answer.
func (p *pool) ask(c *holderStream, h perigee.PeerID, batch []want) error {
	q := request{Op: opBlocks, Want: make([]perigee.CID, len(batch))}
	if batch[0].dir {
		q.Op = opTree
	}
	for i, w := range batch {
		q.Want[i] = perigee.NewCID(w.cid)
	}
	idle := p.f.s.cfg.Idle
	_ = c.st.SetWriteDeadline(time.Now().Add(idle))
	if err := writeMessage(c.w, q); err != nil {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	expected := make(map[string]bool, len(batch))
	for _, w := range batch {
		expected[string(w.cid.Hash())] = true
	}
	if err := p.receive(c, h, q.Op, expected, idle); err != nil {
		return err
	}
	_ = c.st.SetReadDeadline(time.Now().Add(idle))
	var end trailer
	if err := readMessage(c.r, &end); err != nil {
		return noEOF(err)
	}
	if end.Fault != nil {
		return end.Fault.Err("data.Fetch")
	}
	return p.settle(h, batch, expected, end.Missing)
}

// receive reads frames until their end. What has come is deleted from expected;
// directories add what they link to.
func (p *pool) receive(c *holderStream, h perigee.PeerID, op string, expected map[string]bool, idle time.Duration) error {
	buf := frameBuffers.Get().(*[]byte)
	defer frameBuffers.Put(buf)
	for {
		_ = c.st.SetReadDeadline(time.Now().Add(idle))
		id, data, err := readFrame(c.r, *buf, func(n int) {
			if n > c.r.Buffered() {
				_ = c.st.SetReadDeadline(time.Now().Add(idle + time.Duration(n)*time.Second/slowest))
			}
		})
		if err != nil || !id.Defined() {
			return noEOF(err)
		}
		hash := string(id.Hash())
		if !expected[hash] {
			return perigee.E("data.Fetch", perigee.Corrupt, "%s sent block %s, which was not asked for", h.Short(), id)
		}
		if err := verify(id, data); err != nil {
			return perigee.E("data.Fetch", perigee.Corrupt, err, "from %s", h.Short())
		}
		delete(expected, hash)
		if p.arrived(hash) || op == opTree {
			if err := p.keep(h, want{cid: id}, data); err != nil {
				return err
			}
		}
		if op == opTree && isInner(id) {
			n, err := parseUnixFS(data)
			if err != nil {
				return err
			}
			if kindOf(&n) == perigee.KindDir {
				for _, l := range n.Links {
					if isInner(l.CID) {
						expected[string(l.CID.Hash())] = true
					}
				}
			}
		}
	}
}

var frameBuffers = sync.Pool{New: func() any { b := make([]byte, maxFrame); return &b }}

// keep stores a received block. Its error is the store's and ends the fetch.
func (p *pool) keep(h perigee.PeerID, w want, data []byte) error {
	if err := p.f.w.put(w.cid, data); err != nil {
		p.mu.Lock()
		p.err = err
		p.signal()
		p.mu.Unlock()
		return err
	}
	p.f.received(h, len(data))
	return nil
}

// settle looks at what a finished answer did not bring: what the holder said it
// lacks, and what it left out because the answer grew too long. A holder that
// sent nothing lacks it all.
func (p *pool) settle(h perigee.PeerID, batch []want, expected map[string]bool, missing []uint32) error {
	lacking := map[uint32]bool{}
	for _, i := range missing {
		lacking[i] = true
	}
	var absent, left []want
	for i, w := range batch {
		switch {
		case !expected[string(w.cid.Hash())]:
		case lacking[uint32(i)]:
			absent = append(absent, w)
		default:
			left = append(left, w)
		}
	}
	if len(left)+len(absent) == len(batch) {
		p.f.note(h, "does not have it", false)
		p.absent(h, batch)
		return nil
	}
	if len(absent) > 0 {
		p.f.note(h, "lacks blocks", false)
		p.absent(h, absent)
	} else {
		p.f.note(h, "sent what it was asked for", false)
	}
	if len(left) > 0 {
		p.again(h, left)
	}
	return nil
}
