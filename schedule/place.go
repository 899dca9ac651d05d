package schedule

import (
	"cmp"
	"math"
	"slices"

	"github.com/perigee-network/perigee"
)

// What the planner weighs, in seconds.
const (
	// SecondsPerCredit is what a credit weighs: who asks for work is taken to
	// pay one credit to have it one minute sooner.
	SecondsPerCredit = 60

	// FixedTransfer is the cost of moving any bytes at all: finding a holder,
	// opening a stream, walking a DAG.
	FixedTransfer = 0.05

	// DefaultBytesPerSecond is the speed of a link nobody has measured, 100 Mbit/s.
	DefaultBytesPerSecond = 12.5e6

	// startSeconds and scanBytesPerSecond estimate a part's run time from its
	// bytes when nobody knows it: what a word count in WebAssembly does on one core.
	startSeconds       = 0.02
	scanBytesPerSecond = 150e6
)

// Problem is a question to the planner. The planner changes none of it.
type Problem struct {
	Parts      []PartNeed
	Candidates []Candidate  // in any order; of two with one peer ID the later offer counts
	Job        *perigee.Job // normalized; its placement, resources and price are the rules; nil means none
	Engine     string       // engine version the parts need; "" means any
	Now        int64        // Unix milliseconds, against which offers and bids expire; 0 means nothing does

	BytesPerSecond float64 // speed of the network between nodes; 0 means DefaultBytesPerSecond
	PartSeconds    float64 // run time of a part, as far as it is known; 0 means an estimate from its bytes
}

// PartNeed is a part that wants providers.
type PartNeed struct {
	Index  int
	Bytes  int64            // input bytes
	Copies int              // executions wanted, on providers of different operators and one class; 0 means 1
	Avoid  []perigee.PeerID // providers that must not run it: they have failed, or run a copy already
	Class  string           // class of the copies that run already; "" means any
}

// Candidate is a provider that might run parts.
type Candidate struct {
	Offer      *perigee.Offer // nil when only its bid is known
	Bid        *perigee.Bid   // nil when it was not asked or did not answer
	Silent     string         // why there is no bid although it was asked; "" when it answered or was not asked
	Distrusted string         // why it may not run anything; "" when it may
	Busy       int            // executions it has for this requester already, not yet finished
}

// Plan is the planner's answer.
type Plan struct {
	Assignments []Assignment // by part, the cheapest copy first
	Explanation perigee.Explanation
}

// Assignment is one execution that the plan wants.
type Assignment struct {
	Part     int // index
	Provider perigee.PeerID
	Missing  int64   // input bytes that the provider must fetch
	Seconds  float64 // what it costs: transfer, wait and price
}

// Place assigns parts to providers, so that the sum over the parts of transfer
// time, expected wait and price is small, and explains each candidate. Every
// part gets all its copies or none. It is deterministic, whatever the order of
// candidates, and takes time near-linear in parts, candidates and the lines of
// their bids.
//
// It begins with each part where all its bytes lie, spread over those that hold
// them; then the rest, largest first, where they cost least; then it moves
// parts away from where queueing, or the price, costs more than moving them.
// When the result would break the job's price or transfer cap, it is made again
// with that cost weighing more, down to the cheapest there is; what still
// breaks the cap stays unplaced.
func Place(p Problem) Plan {
	b := newBoard(p)
	weigh := weights{price: 1, transfer: 1}
	for range 6 {
		b.place(weigh)
		overPrice, overTransfer := b.overCaps()
		if !overPrice && !overTransfer {
			break
		}
		if overPrice {
			weigh.price *= 64
		}
		if overTransfer {
			weigh.transfer *= 64
		}
	}
	b.enforceCaps()
	return b.plan()
}

type weights struct{ price, transfer float64 }

// need is a part on the board.
type need struct {
	PartNeed
	copies int
	run    float64 // seconds it is expected to run
	local  []local // who holds how much of it, by bidder
	full   int     // how many of them hold all of it
	taken  []pick  // where it goes
	why    string  // why it goes nowhere
}

// local is how much of a part a bidder holds.
type local struct {
	bidder *bidder
	bytes  int64
}

// pick is a part's execution on a bidder.
type pick struct {
	bidder  *bidder
	missing int64
	cost    float64 // as weighed
	seconds float64 // as it is
	moved   bool
}

// board holds the state of one Place.
type board struct {
	Problem
	needs   []*need
	bidders []*bidder // those that may run something, by provider
	reports []report  // of all candidates, by provider
	all     *queue
	class   map[string]*queue
	names   []string // of class, sorted
	byPeer  map[perigee.PeerID]*bidder
	weigh   weights
	meanRun float64
	spare   int64 // most disk any bidder has left for inputs
	tight   int64 // least disk any bidder has left for inputs
	epoch   int   // marks bidders that a search must skip
}

func newBoard(p Problem) *board {
	if !(p.BytesPerSecond > 0) || math.IsInf(p.BytesPerSecond, 0) {
		p.BytesPerSecond = DefaultBytesPerSecond
	}
	if p.Job == nil {
		p.Job = &perigee.Job{}
	}
	b := &board{Problem: p, tight: math.MaxInt64, byPeer: map[perigee.PeerID]*bidder{}, class: map[string]*queue{}}
	b.needs = make([]*need, len(p.Parts))
	total := 0.0
	index := make(map[int]int, len(p.Parts))
	for i, part := range p.Parts {
		part.Bytes = max(part.Bytes, 0)
		n := &need{PartNeed: part, copies: min(max(part.Copies, 1), perigee.MaxCopies)}
		if n.run = p.PartSeconds; !(n.run > 0) || math.IsInf(n.run, 0) {
			n.run = startSeconds + float64(part.Bytes)/scanBytesPerSecond
		}
		total += n.run
		b.needs[i] = n
		index[part.Index] = i
	}
	b.meanRun = total / max(float64(len(p.Parts)), 1)
	b.admit()
	for _, c := range b.bidders {
		b.readLocal(c, index)
	}
	return b
}

// readLocal takes a bid's word for what the bidder holds, within reason.
func (b *board) readLocal(c *bidder, index map[int]int) {
	if c.Bid == nil {
		return
	}
	for _, l := range c.Bid.Local {
		i, known := index[l.Index]
		if !known || l.Bytes <= 0 {
			continue
		}
		n := b.needs[i]
		bytes := min(l.Bytes, n.Bytes)
		if k := len(n.local); k > 0 && n.local[k-1].bidder == c { // named twice
			continue
		}
		n.local = append(n.local, local{c, bytes})
		if bytes == n.Bytes {
			n.full++
		}
		c.localBytes += bytes
		c.offer(bytes, n.Bytes)
	}
}

// place makes one plan under the given weights.
func (b *board) place(w weights) {
	b.weigh = w
	for _, n := range b.needs {
		n.taken, n.why = nil, ""
	}
	for _, c := range b.bidders {
		c.reset(b.meanRun, w.price)
	}
	b.buildQueues()
	order := slices.Clone(b.needs)
	slices.SortStableFunc(order, func(x, y *need) int {
		xf, yf := x.full >= x.copies, y.full >= y.copies
		if xf != yf {
			return map[bool]int{true: -1, false: 1}[xf]
		}
		return cmp.Or(cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(x.Index, y.Index))
	})
	for _, n := range order {
		picks := b.choose(n, n.full >= n.copies)
		if len(picks) < n.copies && n.full >= n.copies {
			picks = b.choose(n, false) // those that hold it all must be avoided
		}
		if len(picks) < n.copies {
			continue
		}
		for _, p := range picks {
			b.take(n, p)
		}
	}
	b.relieve()
}

// choose returns the n.copies cheapest executions of n, all of one class when
// they are several, or fewer when there are no more. fullOnly considers only
// bidders that hold all of the part.
func (b *board) choose(n *need, fullOnly bool) []pick {
	if n.Class != "" {
		if q := b.class[n.Class]; q != nil {
			return b.best(n, q, n.copies, nil, fullOnly)
		}
		return nil
	}
	if n.copies == 1 {
		return b.best(n, b.all, 1, nil, fullOnly)
	}
	var best []pick
	bestCost := math.Inf(1)
	for _, name := range b.names {
		q := b.class[name]
		if len(q.items) < n.copies {
			continue
		}
		picks, cost := b.best(n, q, n.copies, nil, fullOnly), 0.0
		for _, p := range picks {
			cost += p.cost
		}
		if len(picks) == n.copies && cost < bestCost {
			best, bestCost = picks, cost
		}
	}
	return best
}

// best returns the k cheapest executions of n among the bidders of q, by
// different operators, leaving out n.Avoid and the bidders and operators of
// beside. It looks at those that hold some of the part, and at the head of q.
func (b *board) best(n *need, q *queue, k int, beside []pick, fullOnly bool) []pick {
	b.epoch += 2
	skip, known := b.epoch, b.epoch+1
	for _, peer := range n.Avoid {
		if c := b.byPeer[peer]; c != nil {
			c.mark = skip
		}
	}
	operators := make([]perigee.AccountID, 0, k+len(beside))
	for _, p := range beside {
		p.bidder.mark = skip
		operators = append(operators, p.bidder.operator)
	}
	var held []pick
	for _, l := range n.local {
		c := l.bidder
		if c.mark == skip || q != b.all && c.class != q.class {
			continue
		}
		c.mark = known
		if fullOnly && l.bytes < n.Bytes || n.Bytes-l.bytes > c.spare {
			continue
		}
		held = append(held, b.price(n, c, n.Bytes-l.bytes))
	}
	slices.SortFunc(held, comparePicks)

	var popped []*bidder
	next := func() (pick, bool) { // the cheapest of those that hold nothing
		if fullOnly && n.Bytes > 0 || n.Bytes > b.spare {
			return pick{}, false
		}
		for len(q.items) > 0 {
			c := q.pop()
			popped = append(popped, c)
			if c.mark != skip && c.mark != known && n.Bytes <= c.spare {
				return b.price(n, c, n.Bytes), true
			}
		}
		return pick{}, false
	}
	var out []pick
	other, more := next()
	for len(out) < k && (len(held) > 0 || more) {
		var p pick
		if len(held) > 0 && (!more || comparePicks(held[0], other) < 0) {
			p, held = held[0], held[1:]
		} else {
			p = other
			other, more = next()
		}
		if slices.Contains(operators, p.bidder.operator) {
			continue
		}
		operators = append(operators, p.bidder.operator)
		out = append(out, p)
	}
	for _, c := range popped {
		q.push(c)
	}
	return out
}

// comparePicks orders executions by cost, then by how idle their bidders are,
// so that equals share the work, then by provider.
func comparePicks(a, b pick) int {
	return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.bidder.load(), b.bidder.load()), cmp.Compare(a.bidder.order, b.bidder.order))
}

// price says what n costs on c now.
func (b *board) price(n *need, c *bidder, missing int64) pick {
	move := b.transferSeconds(missing)
	return pick{
		bidder: c, missing: missing,
		cost:    c.base() + move*b.weigh.transfer,
		seconds: c.wait() + c.priceSeconds() + move,
	}
}

func (b *board) transferSeconds(missing int64) float64 {
	if missing <= 0 {
		return 0
	}
	return FixedTransfer + float64(missing)/b.BytesPerSecond
}

// take gives n to a bidder; the bidder is busy with it for its transfer and run.
func (b *board) take(n *need, p pick) {
	n.taken = append(n.taken, p)
	p.bidder.parts = append(p.bidder.parts, n)
	b.load(p.bidder, 1, n.run+b.transferSeconds(p.missing))
}

// drop takes n away from the bidder it was given to last.
func (b *board) drop(n *need, i int) {
	p := n.taken[i]
	n.taken = slices.Delete(n.taken, i, i+1)
	p.bidder.parts = p.bidder.parts[:len(p.bidder.parts)-1]
	b.load(p.bidder, -1, -(n.run + b.transferSeconds(p.missing)))
}

func (b *board) load(c *bidder, count int, work float64) {
	c.count += count
	c.work += work
	b.all.fix(c)
	b.class[c.class].fix(c)
}

// relieve moves parts from where they wait or pay more than moving them would
// cost. Each part moves once at most, so that this ends.
func (b *board) relieve() {
	crowded := slices.Clone(b.bidders)
	slices.SortStableFunc(crowded, func(x, y *bidder) int { return cmp.Compare(y.base(), x.base()) })
	for _, c := range crowded {
		for len(c.parts) > 0 && b.moveLast(c) {
		}
	}
}

// moveLast moves the part that c was given last to where it costs less, and
// reports whether there was such a place.
func (b *board) moveLast(c *bidder) bool {
	n := c.parts[len(c.parts)-1]
	i := slices.IndexFunc(n.taken, func(p pick) bool { return p.bidder == c })
	old := n.taken[i]
	if old.moved {
		return false
	}
	b.drop(n, i)
	here := b.price(n, c, old.missing)
	q := b.all
	if n.copies > 1 || n.Class != "" {
		q = b.class[c.class]
	}
	found := b.best(n, q, 1, n.taken, false)
	if len(found) == 0 || found[0].bidder == c || found[0].cost > here.cost-1e-6 {
		here.moved = old.moved
		b.take(n, here)
		return false
	}
	found[0].moved = true
	b.take(n, found[0])
	return true
}
