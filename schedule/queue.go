package schedule

import (
	"container/heap"

	"github.com/perigee-network/perigee"
)

// bidder is a candidate that may run parts, and what it was given so far.
type bidder struct {
	Candidate
	provider perigee.PeerID
	operator perigee.AccountID
	class    string
	region   string
	order    int            // rank among all, by provider
	unit     perigee.Amount // price of one execution
	slots    int            // executions at once, at least 1
	delay    float64        // seconds until the first could start
	spare    int64          // bytes of disk left for fetched inputs

	localBytes int64
	nearest    int64 // fewest bytes missing for a part it holds some of
	near       bool  // whether there is such a part

	weight float64 // of the price
	count  int     // executions it has, ours and earlier ones
	work   float64 // seconds of work they take
	parts  []*need // ours, in the order given

	mark int    // see board.epoch
	at   [2]int // places in the two queues it stands in
}

func (c *bidder) reset(meanRun, weight float64) {
	c.weight = weight
	c.count = max(c.Busy, 0)
	c.work = float64(c.count) * meanRun
	c.parts = c.parts[:0]
}

// offer notes a part of which the bidder holds some bytes.
func (c *bidder) offer(bytes, of int64) {
	if missing := of - bytes; !c.near || missing < c.nearest {
		c.near, c.nearest = true, missing
	}
}

// wait is how long one more execution would stand in line: as many rounds as
// the slots are filled already, each a mean execution long.
func (c *bidder) wait() float64 {
	if c.count < c.slots {
		return c.delay
	}
	return c.delay + float64(c.count/c.slots)*c.work/float64(c.count)
}

func (c *bidder) priceSeconds() float64 { return float64(c.unit) / 1e6 * SecondsPerCredit }

// base is the weighed cost of one more execution, without transfer.
func (c *bidder) base() float64 { return c.wait() + c.priceSeconds()*c.weight }

// load is how full the bidder's slots are.
func (c *bidder) load() float64 { return float64(c.count) / float64(c.slots) }

// queue is a heap of bidders, the cheapest first.
type queue struct {
	items []*bidder
	class string
	which int // index into bidder.at
}

func (q *queue) Len() int { return len(q.items) }

func (q *queue) Less(i, j int) bool {
	a, b := q.items[i], q.items[j]
	if x, y := a.base(), b.base(); x != y {
		return x < y
	}
	if x, y := a.load(), b.load(); x != y {
		return x < y
	}
	return a.order < b.order
}

func (q *queue) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.items[i].at[q.which], q.items[j].at[q.which] = i, j
}

// Push and Pop serve container/heap; use push and pop.
func (q *queue) Push(x any) {
	c := x.(*bidder)
	c.at[q.which] = len(q.items)
	q.items = append(q.items, c)
}

// Pop removes the last item.
func (q *queue) Pop() any {
	c := q.items[len(q.items)-1]
	q.items = q.items[:len(q.items)-1]
	return c
}

func (q *queue) push(c *bidder) { heap.Push(q, c) }
func (q *queue) pop() *bidder   { return heap.Pop(q).(*bidder) }
func (q *queue) fix(c *bidder)  { heap.Fix(q, c.at[q.which]) }

// buildQueues puts all bidders into the queue of all and that of their class.
func (b *board) buildQueues() {
	b.all = &queue{items: make([]*bidder, 0, len(b.bidders))}
	for _, q := range b.class {
		q.items = q.items[:0]
	}
	for _, c := range b.bidders {
		b.all.push(c)
		b.class[c.class].push(c)
	}
}
