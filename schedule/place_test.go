package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/stretchr/testify/require"
)

const engine = "wasmtime-44.0.0/perigee-1"

// provider makes a candidate with four cores, 16 GiB of memory and 100 GiB of disk.
func provider(name, region string, local ...perigee.PartLocal) Candidate {
	id := perigee.PeerID(name)
	return Candidate{
		Offer: &perigee.Offer{
			Provider: id, Account: perigee.AccountID("operator-" + name), Region: region, Engines: []string{engine}, Class: engine + "/amd64",
			CPU: 4, Memory: 16 << 30, Disk: 100 << 30, Expires: 2000,
		},
		Bid: &perigee.Bid{Provider: id, Region: region, Class: engine + "/amd64", Slots: 4, Expires: 2000, Local: local},
	}
}

func parts(n int, bytes int64) []PartNeed {
	out := make([]PartNeed, n)
	for i := range out {
		out[i] = PartNeed{Index: i, Bytes: bytes}
	}
	return out
}

func holds(bytes int64, indexes ...int) []perigee.PartLocal {
	var out []perigee.PartLocal
	for _, i := range indexes {
		out = append(out, perigee.PartLocal{Index: i, Bytes: bytes})
	}
	return out
}

// whoHas returns, by provider, the parts given to it.
func whoHas(p Plan) map[perigee.PeerID][]int {
	m := map[perigee.PeerID][]int{}
	for _, a := range p.Assignments {
		m[a.Provider] = append(m[a.Provider], a.Part)
	}
	return m
}

func TestPlaceKeepsPartsWhereTheirBytesLie(t *testing.T) {
	const mb = 1 << 20
	p := Place(Problem{Parts: parts(6, 100*mb), Candidates: []Candidate{
		provider("a", "EU", holds(100*mb, 0, 1)...), provider("b", "EU", holds(100*mb, 2, 3)...), provider("c", "EU", holds(100*mb, 4, 5)...), provider("d", "EU"),
	}})
	require.Equal(t, map[perigee.PeerID][]int{"a": {0, 1}, "b": {2, 3}, "c": {4, 5}}, whoHas(p))
	require.Zero(t, p.Explanation.Transfer)
	require.EqualValues(t, 600*mb, p.Explanation.Bytes)
	require.EqualValues(t, 200*mb, p.Explanation.Candidates[0].LocalBytes)
	require.Greater(t, p.Explanation.Candidates[3].Score, 5.0, "an idle provider is rated by its best part")
}

func TestPlaceSpreadsEqualLocality(t *testing.T) {
	const mb = 1 << 20
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	p := Place(Problem{Parts: parts(9, mb), Candidates: []Candidate{
		provider("a", "", holds(mb, all...)...), provider("b", "", holds(mb, all...)...), provider("c", "", holds(mb, all...)...),
	}})
	for peer, given := range whoHas(p) {
		require.Len(t, given, 3, "parts of %s", peer)
	}
}

func TestPlaceMovesPartsWhenQueueingCostsMore(t *testing.T) {
	const mb = 1 << 20
	var all []int
	for i := range 40 {
		all = append(all, i)
	}
	problem := Problem{Parts: parts(40, mb), PartSeconds: 10, Candidates: []Candidate{provider("a", "", holds(mb, all...)...), provider("b", "")}}
	p := Place(problem)
	require.InDelta(t, 20, len(whoHas(p)["b"]), 2, "moving 1 MiB costs less than a second, a round in the queue ten")
	problem.PartSeconds = 0.001
	require.Len(t, whoHas(Place(problem))["a"], 40, "ten rounds of a millisecond cost less than moving")
}

func TestPlaceRules(t *testing.T) {
	total := func(f float64) *float64 { return &f }
	for name, c := range map[string]struct {
		job    perigee.Job
		change func(*Candidate)
		rule   string
		reason string
	}{
		"region":       {job: perigee.Job{Placement: perigee.Placement{Regions: []string{"EU"}}}, change: func(c *Candidate) { c.Bid.Region = "US/CA" }, rule: "region", reason: "its region US/CA is not within EU"},
		"no region":    {job: perigee.Job{Placement: perigee.Placement{Regions: []string{"EU", "US"}}}, change: func(c *Candidate) { c.Bid.Region, c.Offer.Region = "", "" }, rule: "region", reason: "it states no region; the job asks for EU or US"},
		"exclude":      {job: perigee.Job{Placement: perigee.Placement{Exclude: []string{"EU/DE"}}}, change: func(c *Candidate) { c.Bid.Region = "EU/DE/BE" }, rule: "exclude", reason: "its region EU/DE/BE is within EU/DE, which the job excludes"},
		"exclude peer": {job: perigee.Job{Placement: perigee.Placement{Exclude: []string{"a"}}}, rule: "exclude", reason: "the job excludes this provider"},
		"engine":       {change: func(c *Candidate) { c.Offer.Engines = []string{"other"} }, rule: "engine", reason: "needs the engine wasmtime-44.0.0/perigee-1, has other"},
		"memory":       {job: perigee.Job{Resources: perigee.Resources{Memory: 64 << 30}}, rule: "resources", reason: "needs 64 GiB of memory, has 16 GiB"},
		"disk and cpu": {job: perigee.Job{Resources: perigee.Resources{CPU: 8, Disk: 1 << 40}}, rule: "resources", reason: "needs 8 cores, has 4; needs 1 TiB of disk, has 100 GiB"},
		"refusal": {change: func(c *Candidate) {
			c.Bid.Refusal = &perigee.Fault{Kind: perigee.Refused, Message: "no jobs on Sundays"}
		}, rule: "bid", reason: "it refuses: no jobs on Sundays"},
		"expired":       {change: func(c *Candidate) { c.Bid.Expires = 500 }, rule: "bid", reason: "its bid expired 500ms ago"},
		"expired offer": {change: func(c *Candidate) { c.Bid, c.Offer.Expires = nil, 1000 }, rule: "bid", reason: "its offer expired 0s ago"},
		"negative":      {change: func(c *Candidate) { c.Bid.Price = -1 }, rule: "bid", reason: "its price is negative, -0.000001 credits"},
		"stolen bid":    {change: func(c *Candidate) { c.Bid.Provider = "z" }, rule: "bid", reason: "its bid names another provider, z"},
		"silent":        {change: func(c *Candidate) { c.Silent = "no answer within 2s" }, rule: "silent", reason: "no answer within 2s"},
		"distrusted":    {change: func(c *Candidate) { c.Distrusted = "it returned a wrong result" }, rule: "distrusted", reason: "it returned a wrong result"},
		"price":         {job: perigee.Job{Price: perigee.Price{MaxTotal: total(1)}}, change: func(c *Candidate) { c.Bid.Price = 2e6 }, rule: "price", reason: "asks 2.000000 credits for each execution; the whole job may cost 1.000000"},
		"transfer":      {job: perigee.Job{Placement: perigee.Placement{MaxTransfer: 1000}}, rule: "transfer", reason: "needs 1 MiB moved to it for its smallest part; the job may move 1000 bytes"},
		"inputs' disk":  {change: func(c *Candidate) { c.Offer.Disk = 100 }, rule: "resources", reason: "needs 1 MiB of disk for inputs to fetch, has 100 bytes left"},
	} {
		t.Run(name, func(t *testing.T) {
			cand := provider("a", "EU")
			if c.change != nil {
				c.change(&cand)
			}
			p := Place(Problem{Parts: parts(1, 1<<20), Candidates: []Candidate{cand}, Job: &c.job, Engine: engine, Now: 1000})
			require.Empty(t, p.Assignments)
			require.Equal(t, c.rule, p.Explanation.Candidates[0].Rule)
			require.Equal(t, c.reason, p.Explanation.Candidates[0].Reason)
			require.Len(t, p.Explanation.Unplaced, 1)
			require.NotEmpty(t, p.Explanation.Unplaced[0].Reason)
		})
	}
}

func TestPlaceNamesNearestMisses(t *testing.T) {
	a, b, c := provider("a", "US"), provider("b", "US"), provider("c", "EU")
	small := provider("d", "EU")
	small.Offer.Memory = 1 << 30
	job := &perigee.Job{Placement: perigee.Placement{Regions: []string{"EU"}}, Resources: perigee.Resources{Memory: 64 << 30}}
	p := Place(Problem{Parts: parts(2, 10), Candidates: []Candidate{a, b, c, small}, Job: job})
	want := "no provider fits: 2 refused by region (a: its region US is not within EU; b: its region US is not within EU), 2 refused by resources (c: needs 64 GiB of memory, has 16 GiB; d: needs 64 GiB of memory, has 1 GiB)"
	require.Equal(t, []perigee.UnplacedPart{{Part: 0, Reason: want}, {Part: 1, Reason: want}}, p.Explanation.Unplaced)

	p = Place(Problem{Parts: parts(1, 10)})
	require.Contains(t, p.Explanation.Unplaced[0].Reason, "no provider is known")
}

func TestPlaceReplicas(t *testing.T) {
	const mb = 1 << 20
	arm := provider("arm", "", holds(mb, 0)...)
	arm.Bid.Class = engine + "/arm64"
	twin := provider("a2", "")
	twin.Offer.Account = "operator-a"
	cands := []Candidate{provider("a", ""), twin, provider("b", ""), provider("c", ""), arm}
	p := Place(Problem{Parts: []PartNeed{{Bytes: mb, Copies: 3}}, Candidates: cands})
	require.Len(t, p.Assignments, 3)
	got := whoHas(p)
	require.NotContains(t, got, perigee.PeerID("arm"))
	require.False(t, got["a"] != nil && got["a2"] != nil, "one operator runs two copies")
	i := slices.IndexFunc(p.Explanation.Candidates, func(c perigee.CandidateReport) bool { return c.Provider == "arm" })
	require.Equal(t, "class", p.Explanation.Candidates[i].Rule)

	p = Place(Problem{Parts: []PartNeed{{Bytes: mb, Copies: 4}}, Candidates: cands})
	require.Empty(t, p.Assignments)
	require.Contains(t, p.Explanation.Unplaced[0].Reason, "4 copies need")

	p = Place(Problem{Parts: []PartNeed{{Bytes: mb, Copies: 1, Avoid: []perigee.PeerID{"a", "a2", "b"}, Class: engine + "/amd64"}}, Candidates: cands})
	require.Equal(t, map[perigee.PeerID][]int{"c": {0}}, whoHas(p))
	p = Place(Problem{Parts: []PartNeed{{Bytes: mb, Copies: 1, Class: "none such"}}, Candidates: cands})
	require.Contains(t, p.Explanation.Unplaced[0].Reason, "refused by class")
}

func TestPlaceCaps(t *testing.T) {
	const mb = 1 << 20
	dear, cheap := provider("dear", "", holds(mb, 0, 1, 2, 3)...), provider("cheap", "")
	dear.Bid.Price, cheap.Bid.Price = 1000, 10
	limit := 0.00205 // credits: two parts at the dear one, two at the cheap one
	job := &perigee.Job{Price: perigee.Price{MaxTotal: &limit}}
	p := Place(Problem{Parts: parts(4, mb), Candidates: []Candidate{dear, cheap}, Job: job})
	require.Empty(t, p.Explanation.Unplaced)
	require.LessOrEqual(t, p.Explanation.Price, perigee.Amount(2050))

	limit = 0.00003
	p = Place(Problem{Parts: parts(4, mb), Candidates: []Candidate{dear, cheap}, Job: job})
	require.Len(t, p.Explanation.Unplaced, 1)
	require.Contains(t, p.Explanation.Unplaced[0].Reason, "the whole job would cost 0.000040 credits, and it may cost 0.000030")

	job = &perigee.Job{Placement: perigee.Placement{MaxTransfer: mb}}
	p = Place(Problem{Parts: parts(40, mb), PartSeconds: 10, Candidates: []Candidate{provider("a", "", holds(mb, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38)...), provider("b", "")}, Job: job})
	require.Empty(t, p.Explanation.Unplaced)
	require.EqualValues(t, mb, p.Explanation.Transfer)
}

// randomProblem makes a problem with everything in it, also nonsense.
func randomProblem(r *rand.Rand) Problem {
	p := Problem{Engine: engine, Now: 1000, PartSeconds: r.Float64() * 3, BytesPerSecond: 1e6 * r.Float64()}
	n := 1 + r.IntN(40)
	for i := range n {
		need := PartNeed{Index: i * 3, Bytes: r.Int64N(50 << 20), Copies: r.IntN(5)}
		for range r.IntN(3) {
			need.Avoid = append(need.Avoid, perigee.PeerID(fmt.Sprint("p", r.IntN(20))))
		}
		if r.IntN(10) == 0 {
			need.Class = fmt.Sprint("class", r.IntN(3))
		}
		p.Parts = append(p.Parts, need)
	}
	job := &perigee.Job{Resources: perigee.Resources{CPU: 1 + r.IntN(3), Memory: perigee.Size(r.Int64N(8 << 30)), Disk: perigee.Size(r.Int64N(1 << 30))}}
	if r.IntN(3) == 0 {
		job.Placement.Regions = []string{"EU", "US/CA"}
	}
	if r.IntN(3) == 0 {
		job.Placement.Exclude = []string{"EU/DE", "p3"}
	}
	if r.IntN(3) == 0 {
		job.Placement.MaxTransfer = perigee.Size(r.Int64N(200 << 20))
	}
	if r.IntN(3) == 0 {
		limit := r.Float64() * 0.02
		job.Price.MaxTotal = &limit
	}
	p.Job = job
	regions := []string{"EU", "EU/DE", "EU/FR", "US", "US/CA", "US/CAX", ""}
	for i := range r.IntN(20) {
		c := provider(fmt.Sprint("p", i), regions[r.IntN(len(regions))])
		c.Offer.Account = perigee.AccountID(fmt.Sprint("operator", r.IntN(15)))
		c.Offer.CPU, c.Offer.Memory, c.Offer.Disk = r.IntN(8), r.Int64N(32<<30), r.Int64N(4<<30)
		class := fmt.Sprint("class", r.IntN(3))
		c.Offer.Class, c.Bid.Class, c.Bid.Slots = class, class, r.IntN(6)-1
		c.Bid.Price, c.Bid.Wait, c.Busy = perigee.Amount(r.IntN(1000)), r.Int64N(3000)-100, r.IntN(4)
		switch r.IntN(12) {
		case 0:
			c.Bid = nil
		case 1:
			c.Offer = nil
		case 2:
			c.Silent = "silent"
		case 3:
			c.Distrusted = "distrusted"
		case 4:
			c.Bid.Expires = 1
		case 5:
			c.Bid.Refusal = &perigee.Fault{}
		case 6:
			c.Offer.Engines = nil
		}
		if c.Bid != nil {
			for range r.IntN(2 * n) {
				c.Bid.Local = append(c.Bid.Local, perigee.PartLocal{Index: r.IntN(3*n + 6), Bytes: r.Int64N(60<<20) - 1000})
			}
		}
		p.Candidates = append(p.Candidates, c)
	}
	return p
}

func TestPlaceKeepsEveryRule(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := randomProblem(r)
		plan := Place(p)
		if msg := violation(p, plan); msg != "" {
			t.Fatalf("seed %d: %s", seed, msg)
		}
		r.Shuffle(len(p.Candidates), func(i, j int) { p.Candidates[i], p.Candidates[j] = p.Candidates[j], p.Candidates[i] })
		require.Equal(t, plan, Place(p), "seed %d: the order of candidates matters", seed)
	}
}

// violation checks a plan against the problem, written apart from the planner.
func violation(p Problem, plan Plan) string {
	cands := map[perigee.PeerID]Candidate{}
	for _, c := range p.Candidates {
		cands[providerOf(c)] = c
	}
	placed := map[int][]Candidate{}
	var price perigee.Amount
	var moved int64
	for _, a := range plan.Assignments {
		c, known := cands[a.Provider]
		if !known {
			return fmt.Sprintf("part %d goes to a stranger", a.Part)
		}
		placed[a.Part] = append(placed[a.Part], c)
		moved += a.Missing
		if c.Bid != nil {
			price += c.Bid.Price
		} else {
			price += c.Offer.Price
		}
		switch {
		case c.Silent != "" || c.Distrusted != "" || c.Bid != nil && (c.Bid.Refusal != nil || c.Bid.Expires <= p.Now):
			return fmt.Sprintf("part %d goes to %s, which must not run it", a.Part, a.Provider)
		case c.Offer != nil && (!slices.Contains(c.Offer.Engines, p.Engine) || c.Offer.CPU < p.Job.Resources.CPU ||
			c.Offer.Memory < int64(p.Job.Resources.Memory) || c.Offer.Disk < int64(p.Job.Resources.Disk)+a.Missing):
			return fmt.Sprintf("part %d goes to %s, which cannot run it", a.Part, a.Provider)
		case a.Provider == "p3" && p.Job.Placement.Exclude != nil:
			return "an excluded provider runs a part"
		case strings.HasPrefix(regionOf(c), "EU/DE") && p.Job.Placement.Exclude != nil:
			return "an excluded region runs a part"
		case p.Job.Placement.Regions != nil && !strings.HasPrefix(regionOf(c), "EU") && regionOf(c) != "US/CA":
			return "a foreign region runs a part"
		}
	}
	unplaced := map[int]bool{}
	for _, u := range plan.Explanation.Unplaced {
		unplaced[u.Part] = true
		if u.Reason == "" {
			return fmt.Sprintf("part %d is unplaced without a reason", u.Part)
		}
	}
	for _, n := range p.Parts {
		got := placed[n.Index]
		if want := max(n.Copies, 1); len(got) != want && !(len(got) == 0 && unplaced[n.Index]) {
			return fmt.Sprintf("part %d has %d of %d copies", n.Index, len(got), want)
		}
		operators := map[perigee.AccountID]bool{}
		for _, c := range got {
			if operators[operatorOf(c)] {
				return fmt.Sprintf("part %d has two copies at one operator", n.Index)
			}
			operators[operatorOf(c)] = true
			if classOf(c) != classOf(got[0]) || n.Class != "" && classOf(c) != n.Class {
				return fmt.Sprintf("part %d mixes classes", n.Index)
			}
			if slices.Contains(n.Avoid, providerOf(c)) {
				return fmt.Sprintf("part %d goes where it must not", n.Index)
			}
		}
	}
	if limit := p.Job.Price.MaxTotal; limit != nil && float64(price) > *limit*1e6+0.5 {
		return "the price cap is broken"
	}
	if most := int64(p.Job.Placement.MaxTransfer); most > 0 && moved > most {
		return "the transfer cap is broken"
	}
	if price != plan.Explanation.Price || moved != plan.Explanation.Transfer {
		return "the explanation's totals are wrong"
	}
	return ""
}

func TestPlaceGainsFromMoreCandidates(t *testing.T) {
	for seed := range uint64(500) {
		p := randomProblem(rand.New(rand.NewPCG(seed, 2)))
		p.Job.Price.MaxTotal, p.Job.Placement.MaxTransfer = nil, 0 // the caps are met by a heuristic
		all := Place(p)
		p.Candidates = p.Candidates[:len(p.Candidates)/2]
		fewer := Place(p)
		placed := map[int]bool{}
		for _, a := range all.Assignments {
			placed[a.Part] = true
		}
		for _, a := range fewer.Assignments {
			require.True(t, placed[a.Part], "seed %d: part %d found a place only among fewer candidates", seed, a.Part)
		}
	}
}

// bigProblem has n parts of 8 MiB, each held by three of 1,000 providers.
func bigProblem(n, copies int) Problem {
	p := Problem{Parts: parts(n, 8<<20), PartSeconds: 0.1}
	for i := range 1000 {
		c := provider(fmt.Sprintf("p%04d", i), "EU")
		c.Bid.Price = perigee.Amount(i % 7)
		p.Candidates = append(p.Candidates, c)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		p.Parts[i].Copies = copies
		for range 3 {
			bid := p.Candidates[r.IntN(1000)].Bid
			bid.Local = append(bid.Local, perigee.PartLocal{Index: i, Bytes: 8 << 20})
		}
	}
	return p
}

func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		for _, copies := range []int{1, 3} {
			p := bigProblem(n, copies)
			b.Run(fmt.Sprintf("parts=%d/copies=%d", n, copies), func(b *testing.B) {
				for b.Loop() {
					if len(Place(p).Assignments) != n*copies {
						b.Fatal("not all parts were placed")
					}
				}
			})
		}
	}
}
