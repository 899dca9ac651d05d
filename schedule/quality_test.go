package schedule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/stretchr/testify/require"
)

// costOf plays an assignment (the index of a candidate for each part) through:
// each provider runs its parts in order on its slots, one as soon as another
// ends. It is the sum the planner wants to be small, computed the long way.
func costOf(p Problem, to []int) float64 {
	slots := make([][]float64, len(p.Candidates))
	for i, c := range p.Candidates {
		for range c.Bid.Slots {
			slots[i] = append(slots[i], float64(c.Bid.Wait)/1000)
		}
	}
	total := 0.0
	for i, part := range p.Parts {
		c := p.Candidates[to[i]]
		missing := part.Bytes
		for _, l := range c.Bid.Local {
			if l.Index == part.Index {
				missing -= l.Bytes
			}
		}
		move := 0.0
		if missing > 0 {
			move = FixedTransfer + float64(missing)/DefaultBytesPerSecond
		}
		first := 0
		for k, free := range slots[to[i]] {
			if free < slots[to[i]][first] {
				first = k
			}
		}
		total += slots[to[i]][first] + move + float64(c.Bid.Price)/1e6*SecondsPerCredit
		slots[to[i]][first] += move + p.PartSeconds
	}
	return total
}

// TestPlaceIsNearTheBest compares plans of small problems with the best of all
// assignments. The planner is greedy; it should not be far off.
func TestPlaceIsNearTheBest(t *testing.T) {
	const rounds = 300
	worst, sum := 0.0, 0.0
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 5))
		p := Problem{Parts: parts(1+r.IntN(6), 0), PartSeconds: 0.1 + r.Float64()*3}
		for i := range p.Parts {
			p.Parts[i].Bytes = r.Int64N(30 << 20)
		}
		for i := range 3 {
			c := provider(fmt.Sprint(i), "")
			c.Bid.Slots, c.Bid.Price, c.Bid.Wait = 1+r.IntN(3), perigee.Amount(r.IntN(20_000)), r.Int64N(500)
			for k, part := range p.Parts {
				if r.IntN(2) == 0 {
					c.Bid.Local = append(c.Bid.Local, perigee.PartLocal{Index: k, Bytes: part.Bytes})
				}
			}
			p.Candidates = append(p.Candidates, c)
		}
		to := make([]int, len(p.Parts))
		for _, a := range Place(p).Assignments {
			to[a.Part] = int(a.Provider[0] - '0')
		}
		got, best := costOf(p, to), math.Inf(1)
		for code := range int(math.Pow(3, float64(len(to)))) {
			for i := range to {
				to[i] = code % 3
				code /= 3
			}
			best = min(best, costOf(p, to))
		}
		ratio := (got + 0.01) / (best + 0.01)
		worst, sum = max(worst, ratio), sum+ratio
	}
	t.Logf("mean %.3f, worst %.3f of the best", sum/rounds, worst)
	require.Less(t, sum/rounds, 1.05)
	require.Less(t, worst, 1.6)
}
