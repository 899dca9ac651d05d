package schedule

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/perigee-network/perigee"
)

// plan reads the answer off the board.
func (b *board) plan() Plan {
	var p Plan
	e := &p.Explanation
	e.Parts = len(b.needs)
	reasons := map[string]string{} // parts with one need share one reason
	for _, n := range b.inOrder() {
		e.Bytes = add(e.Bytes, n.Bytes)
		if len(n.taken) == 0 {
			e.Unplaced = append(e.Unplaced, perigee.UnplacedPart{Part: n.Index, Reason: b.reasonFor(n, reasons)})
			continue
		}
		slices.SortStableFunc(n.taken, func(x, y pick) int {
			return cmp.Or(cmp.Compare(x.seconds, y.seconds), cmp.Compare(x.bidder.order, y.bidder.order))
		})
		for _, t := range n.taken {
			p.Assignments = append(p.Assignments, Assignment{Part: n.Index, Provider: t.bidder.provider, Missing: t.missing, Seconds: t.seconds})
		}
	}
	e.Price, e.Transfer = b.totals()
	e.Candidates = b.candidates()
	return p
}

// candidates completes the reports on all candidates.
func (b *board) candidates() []perigee.CandidateReport {
	sum := map[*bidder]float64{}
	given := map[*bidder]int{}
	smallest, copies := int64(math.MaxInt64), 1
	for _, n := range b.needs {
		smallest = min(smallest, n.Bytes)
		copies = max(copies, n.copies)
		for _, t := range n.taken {
			sum[t.bidder] += t.seconds
			given[t.bidder]++
		}
	}
	out := make([]perigee.CandidateReport, 0, len(b.reports))
	for _, r := range b.reports {
		c := r.bidder
		if c != nil {
			r.LocalBytes, r.Assigned = c.localBytes, given[c]
			missing := smallest
			if c.near {
				missing = min(missing, c.nearest)
			}
			if len(b.needs) == 0 {
				missing = 0
			}
			most := int64(b.Job.Placement.MaxTransfer)
			switch fellows := len(b.class[c.class].items); {
			case r.Assigned > 0:
				r.Score = sum[c] / float64(r.Assigned)
			case copies > 1 && fellows < copies:
				r.Rule = "class"
				r.Reason = fmt.Sprintf("%s of its class %q may run the job where %d copies are compared", counted(fellows, "provider"), c.class, copies)
			case missing > c.spare:
				r.Rule = "resources"
				r.Reason = fmt.Sprintf("needs %s of disk for inputs to fetch, has %s left", bytesText(missing), bytesText(max(c.spare, 0)))
			case most > 0 && missing > most:
				r.Rule = "transfer"
				r.Reason = fmt.Sprintf("needs %s moved to it for its smallest part; the job may move %s", bytesText(missing), bytesText(most))
			default:
				r.Score = c.wait() + c.priceSeconds() + b.transferSeconds(missing)
			}
		}
		out = append(out, r.CandidateReport)
	}
	return out
}

// reasonFor says why no candidate takes n, with the nearest misses.
func (b *board) reasonFor(n *need, known map[string]string) string {
	if n.why != "" {
		return n.why
	}
	if n.Bytes > b.tight { // which candidates have the disk depends on the part
		return b.misses(n)
	}
	key := fmt.Sprintf("%d %q %q", n.copies, n.Class, n.Avoid)
	why, ok := known[key]
	if !ok {
		why = b.misses(n)
		known[key] = why
	}
	return why
}

// missesTold is how many of those that one rule refused are told by name.
const missesTold = 3

func (b *board) misses(n *need) string {
	if len(b.reports) == 0 {
		return "no provider is known; start one with \"perigee serve\" or connect to a network with \"perigee connect\""
	}
	type miss struct {
		text string // who, and why
		by   float64
	}
	type group struct {
		rule   string
		misses []miss
	}
	var groups []*group
	note := func(who perigee.PeerID, rule, reason string, by float64) {
		i := slices.IndexFunc(groups, func(g *group) bool { return g.rule == rule })
		if i < 0 {
			groups = append(groups, &group{rule: rule})
			i = len(groups) - 1
		}
		groups[i].misses = append(groups[i].misses, miss{who.Short() + ": " + reason, by})
	}
	fits := 0
	held := map[*bidder]int64{}
	for _, l := range n.local {
		held[l.bidder] = l.bytes
	}
	for _, r := range b.reports {
		switch c := r.bidder; {
		case c == nil:
			note(r.Provider, r.Rule, r.Reason, r.miss)
		case slices.Contains(n.Avoid, c.provider):
			note(c.provider, "history", "it failed this part or runs a copy of it already", 1)
		case n.Class != "" && c.class != n.Class:
			note(c.provider, "class", fmt.Sprintf("the other copies run on class %q", n.Class), 1)
		case n.Bytes-held[c] > c.spare:
			note(c.provider, "resources", fmt.Sprintf("needs %s of disk for inputs to fetch, has %s left", bytesText(n.Bytes-held[c]), bytesText(max(c.spare, 0))),
				float64(n.Bytes)/float64(max(c.spare, 1)))
		default:
			fits++
		}
	}
	slices.SortStableFunc(groups, func(x, y *group) int {
		return cmp.Or(cmp.Compare(len(y.misses), len(x.misses)), cmp.Compare(x.rule, y.rule))
	})
	var texts []string
	for _, g := range groups {
		slices.SortStableFunc(g.misses, func(x, y miss) int { return cmp.Compare(x.by, y.by) })
		nearest := ""
		if len(g.misses) > missesTold {
			nearest = "the nearest: "
		}
		var told []string
		for _, m := range g.misses[:min(len(g.misses), missesTold)] {
			told = append(told, m.text)
		}
		texts = append(texts, fmt.Sprintf("%d refused by %s (%s%s)", len(g.misses), g.rule, nearest, strings.Join(told, "; ")))
	}
	head := "no provider fits"
	if fits > 0 {
		head = fmt.Sprintf("%d copies need as many providers of one class and of different operators; %d fit in all", n.copies, fits)
		if fits < n.copies {
			head = fmt.Sprintf("%d copies need as many providers; %d fit", n.copies, fits)
		}
	}
	if len(texts) == 0 {
		return head
	}
	return head + ": " + strings.Join(texts, ", ")
}
