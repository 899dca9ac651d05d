package schedule

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/perigee-network/perigee"
)

// report is what the planner thinks of a candidate: the rule that refuses it,
// or its bidder.
type report struct {
	perigee.CandidateReport
	bidder *bidder
	miss   float64 // how far a refused candidate is from fitting; the nearest is named
}

// refusal is a broken rule, in words.
type refusal struct {
	rule, reason string
	miss         float64
}

func refuse(rule, format string, args ...any) *refusal {
	return &refusal{rule: rule, reason: fmt.Sprintf(format, args...), miss: 1}
}

// admit sorts the candidates, applies the rules to each and makes bidders of
// those that none refuses.
func (b *board) admit() {
	for _, c := range b.unique() {
		r := report{CandidateReport: perigee.CandidateReport{
			Provider: providerOf(c), Region: regionOf(c), Class: classOf(c), Slots: b.slotsOf(c), Price: priceOf(c),
		}}
		if no := b.refusalOf(c); no != nil {
			r.Rule, r.Reason, r.miss = no.rule, no.reason, no.miss
		} else {
			r.bidder = b.newBidder(c)
			b.bidders = append(b.bidders, r.bidder)
			b.byPeer[r.bidder.provider] = r.bidder
			if b.class[r.bidder.class] == nil {
				b.class[r.bidder.class] = &queue{class: r.bidder.class, which: 1}
				b.names = append(b.names, r.bidder.class)
			}
			b.spare = max(b.spare, r.bidder.spare)
			b.tight = min(b.tight, r.bidder.spare)
		}
		b.reports = append(b.reports, r)
	}
	slices.Sort(b.names)
}

// unique returns the candidates sorted by provider, one for each.
func (b *board) unique() []Candidate {
	all := slices.DeleteFunc(slices.Clone(b.Candidates), func(c Candidate) bool { return c.Offer == nil && c.Bid == nil })
	slices.SortFunc(all, func(x, y Candidate) int {
		return cmp.Or(
			cmp.Compare(providerOf(x), providerOf(y)),
			cmp.Compare(sequenceOf(y), sequenceOf(x)),
			cmp.Compare(expiryOf(y), expiryOf(x)),
			cmp.Compare(priceOf(x), priceOf(y)),
			cmp.Compare(y.Silent+y.Distrusted, x.Silent+x.Distrusted),
			cmp.Compare(y.Busy, x.Busy),
		)
	})
	return slices.CompactFunc(all, func(x, y Candidate) bool { return providerOf(x) == providerOf(y) })
}

func providerOf(c Candidate) perigee.PeerID {
	if c.Offer != nil {
		return c.Offer.Provider
	}
	return c.Bid.Provider
}

func sequenceOf(c Candidate) uint64 {
	if c.Offer != nil {
		return c.Offer.Sequence
	}
	return 0
}

func expiryOf(c Candidate) int64 {
	if c.Bid != nil {
		return c.Bid.Expires
	}
	return 0
}

func regionOf(c Candidate) string {
	if c.Bid != nil && c.Bid.Region != "" || c.Offer == nil {
		return c.Bid.Region
	}
	return c.Offer.Region
}

func classOf(c Candidate) string {
	if c.Bid != nil && c.Bid.Class != "" || c.Offer == nil {
		return c.Bid.Class
	}
	return c.Offer.Class
}

func priceOf(c Candidate) perigee.Amount {
	if c.Bid != nil {
		return c.Bid.Price
	}
	return c.Offer.Price
}

func operatorOf(c Candidate) perigee.AccountID {
	switch {
	case c.Bid != nil && c.Bid.Account != "":
		return c.Bid.Account
	case c.Offer != nil && c.Offer.Account != "":
		return c.Offer.Account
	}
	return perigee.AccountID(providerOf(c)) // unstated: an operator of its own
}

// slotsOf is how many executions a candidate can run at once: what its bid
// says, within what its offer's cores and memory carry.
func (b *board) slotsOf(c Candidate) int {
	slots := math.MaxInt32
	if c.Bid != nil {
		slots = max(c.Bid.Slots, 0)
	}
	if c.Offer != nil {
		slots = min(slots, c.Offer.CPU/max(b.Job.Resources.CPU, 1))
		if m := int64(b.Job.Resources.Memory); m > 0 {
			slots = int(min(int64(slots), c.Offer.Memory/m))
		}
	}
	return max(slots, 0)
}

func (b *board) newBidder(c Candidate) *bidder {
	n := &bidder{
		Candidate: c, provider: providerOf(c), operator: operatorOf(c), class: classOf(c), region: regionOf(c),
		order: len(b.bidders), unit: priceOf(c), slots: max(b.slotsOf(c), 1), spare: math.MaxInt64,
	}
	if c.Bid != nil {
		n.delay = float64(max(c.Bid.Wait, 0)) / 1000
	}
	if c.Offer != nil {
		n.spare = c.Offer.Disk - int64(b.Job.Resources.Disk)
	}
	return n
}

// refusalOf applies the rules that concern a candidate alone, in the order in
// which a person would ask: may it, can it, does it want to.
func (b *board) refusalOf(c Candidate) *refusal {
	for _, rule := range []func(Candidate) *refusal{
		b.distrusted, b.excluded, b.regional, b.engine, b.resources, b.bidding, b.pricing,
	} {
		if no := rule(c); no != nil {
			return no
		}
	}
	return nil
}

func (b *board) distrusted(c Candidate) *refusal {
	if c.Distrusted != "" {
		return refuse("distrusted", "%s", c.Distrusted)
	}
	return nil
}

func (b *board) excluded(c Candidate) *refusal {
	for _, x := range b.Job.Placement.Exclude {
		if x == string(providerOf(c)) {
			return refuse("exclude", "the job excludes this provider")
		}
		if region := regionOf(c); x != "" && perigee.RegionWithin(region, x) {
			return refuse("exclude", "its region %s is within %s, which the job excludes", region, x)
		}
	}
	return nil
}

func (b *board) regional(c Candidate) *refusal {
	areas, region := b.Job.Placement.Regions, regionOf(c)
	if len(areas) == 0 || slices.ContainsFunc(areas, func(a string) bool { return perigee.RegionWithin(region, a) }) {
		return nil
	}
	if region == "" {
		return refuse("region", "it states no region; the job asks for %s", strings.Join(areas, " or "))
	}
	return refuse("region", "its region %s is not within %s", region, strings.Join(areas, " or "))
}

func (b *board) engine(c Candidate) *refusal {
	if b.Engine == "" || c.Offer == nil || slices.Contains(c.Offer.Engines, b.Engine) {
		return nil
	}
	if len(c.Offer.Engines) == 0 {
		return refuse("engine", "needs the engine %s, has none", b.Engine)
	}
	return refuse("engine", "needs the engine %s, has %s", b.Engine, strings.Join(c.Offer.Engines, ", "))
}

func (b *board) resources(c Candidate) *refusal {
	if c.Offer == nil {
		return nil
	}
	r := b.Job.Resources
	var lacks []string
	miss := 0.0
	lack := func(need, has int64, format func(int64) string, of string) {
		if need > has {
			lacks = append(lacks, fmt.Sprintf("needs %s of %s, has %s", format(need), of, format(has)))
			miss += float64(need) / float64(max(has, 1))
		}
	}
	if r.CPU > c.Offer.CPU {
		lacks = append(lacks, fmt.Sprintf("needs %s, has %d", counted(r.CPU, "core"), c.Offer.CPU))
		miss += float64(r.CPU) / float64(max(c.Offer.CPU, 1))
	}
	lack(int64(r.Memory), c.Offer.Memory, bytesText, "memory")
	lack(int64(r.Disk), c.Offer.Disk, bytesText, "disk")
	if lacks == nil {
		return nil
	}
	return &refusal{"resources", strings.Join(lacks, "; "), miss}
}

func (b *board) bidding(c Candidate) *refusal {
	switch {
	case c.Silent != "":
		return refuse("silent", "%s", c.Silent)
	case c.Bid != nil && c.Bid.Refusal != nil:
		return refuse("bid", "it refuses: %s", c.Bid.Refusal.Message)
	case c.Bid != nil && c.Bid.Provider != providerOf(c):
		return refuse("bid", "its bid names another provider, %s", c.Bid.Provider)
	case b.Now > 0 && c.Bid != nil && c.Bid.Expires <= b.Now:
		return refuse("bid", "its bid expired %s ago", ago(b.Now-c.Bid.Expires))
	case b.Now > 0 && c.Bid == nil && c.Offer.Expires <= b.Now:
		return refuse("bid", "its offer expired %s ago", ago(b.Now-c.Offer.Expires))
	case priceOf(c) < 0:
		return refuse("bid", "its price is negative, %s credits", priceOf(c))
	}
	return nil
}

func (b *board) pricing(c Candidate) *refusal {
	limit, capped := b.priceCap()
	if p := priceOf(c); capped && p > limit {
		return &refusal{"price", fmt.Sprintf("asks %s credits for each execution; the whole job may cost %s", p, limit), float64(p) / float64(max(limit, 1))}
	}
	return nil
}

// priceCap is the most the job may cost.
func (b *board) priceCap() (perigee.Amount, bool) {
	p := b.Job.Price.MaxTotal
	if p == nil || !(*p >= 0) {
		return 0, false
	}
	micro := math.Round(*p * 1e6)
	if micro >= math.MaxInt64 {
		return 0, false
	}
	return perigee.Amount(micro), true
}

// overCaps says which caps the placement breaks.
func (b *board) overCaps() (price, transfer bool) {
	cost, moved := b.totals()
	limit, capped := b.priceCap()
	most := int64(b.Job.Placement.MaxTransfer)
	return capped && cost > limit, most > 0 && moved > most
}

func (b *board) totals() (cost perigee.Amount, moved int64) {
	for _, n := range b.needs {
		c, m := totalOf(n.taken)
		cost, moved = add(cost, c), add(moved, m)
	}
	return cost, moved
}

func totalOf(picks []pick) (cost perigee.Amount, moved int64) {
	for _, p := range picks {
		cost, moved = add(cost, p.bidder.unit), add(moved, p.missing)
	}
	return cost, moved
}

// add adds amounts that are not negative, and stays at the largest there is.
func add[T ~int64](a, b T) T {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// enforceCaps takes back the parts that break a cap even in the cheapest
// placement found: in order of index, each part that no longer fits is left out.
func (b *board) enforceCaps() {
	overPrice, overTransfer := b.overCaps()
	if !overPrice && !overTransfer {
		return
	}
	limit, capped := b.priceCap()
	most := int64(b.Job.Placement.MaxTransfer)
	var cost perigee.Amount
	var moved int64
	total, transfer := b.totals()
	for _, n := range b.inOrder() {
		c, m := totalOf(n.taken)
		switch {
		case capped && add(cost, c) > limit:
			n.taken, n.why = nil, fmt.Sprintf("price: the whole job would cost %s credits, and it may cost %s", total, limit)
		case most > 0 && add(moved, m) > most:
			n.taken, n.why = nil, fmt.Sprintf("transfer: the job would move %s between nodes, and it may move %s", bytesText(transfer), bytesText(most))
		default:
			cost, moved = add(cost, c), add(moved, m)
		}
	}
}

func (b *board) inOrder() []*need {
	needs := slices.Clone(b.needs)
	slices.SortStableFunc(needs, func(x, y *need) int { return cmp.Compare(x.Index, y.Index) })
	return needs
}

// bytesText prints bytes for people, with one decimal at most: "1.5 GiB".
func bytesText(n int64) string {
	f, unit := float64(n), "bytes"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if f == math.Trunc(f) || unit == "bytes" {
		return fmt.Sprintf("%.0f %s", f, unit)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

func ago(ms int64) time.Duration {
	d := time.Duration(min(ms, int64(1e12))) * time.Millisecond
	if d > time.Second {
		d = d.Round(time.Second)
	}
	return d
}

func counted(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}
