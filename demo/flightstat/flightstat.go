// Package flightstat is the computation of the demo's job: for every airport
// the departures, the mean delay and the worst decile, from tables of flights
// that lie in parts on many nodes.
//
// A [Summary] counts an airport's departures by delay in whole minutes. Adding
// the counts of two summaries gives the summary of both tables, so everything
// derived from the sum is exact, as if one process had read all of them. All
// arithmetic is on integers: the same input gives the same bytes anywhere.
//
// The map program (demo/flights) makes a summary of its part; the merge
// program (demo/flightsmerge) adds the summaries and prints the table.
package flightstat

import (
	"bytes"
	"fmt"
	"sort"
)

// The delays that a table may hold, in minutes. Beyond these lies a mistake in
// the data, not a delay; the bounds also keep hostile input from growing memory.
const (
	MinDelay = -2 * 24 * 60
	MaxDelay = 20 * 24 * 60
)

// code is an airport's three letters as a number below letters³.
type code uint16

const letters = 26

func parseCode(b []byte) (code, bool) {
	if len(b) != 3 {
		return 0, false
	}
	n := code(0)
	for _, c := range b {
		if c < 'A' || c > 'Z' {
			return 0, false
		}
		n = n*letters + code(c-'A')
	}
	return n, true
}

func (c code) String() string {
	return string([]byte{'A' + byte(c/letters/letters), 'A' + byte(c/letters%letters), 'A' + byte(c%letters)})
}

// Summary counts departures by airport and delay. The zero value is empty and
// ready to use. It is not safe for concurrent use.
type Summary struct {
	// counts[a][d-MinDelay] is how many flights left airport a with delay d.
	counts [letters * letters * letters][]uint32
}

// count adds n departures from airport a with the given delay, which lies
// between MinDelay and MaxDelay.
func (s *Summary) count(a code, delay int, n uint32) {
	i := delay - MinDelay
	c := s.counts[a]
	if i >= len(c) {
		// Most delays are below two hours more than the least; the rest grow it.
		c = append(c, make([]uint32, max(i+1, -MinDelay+120)-len(c))...)
		s.counts[a] = c
	}
	c[i] += n
}

// Merge adds what o counted to s.
func (s *Summary) Merge(o *Summary) {
	for a, c := range o.counts {
		for i, n := range c {
			if n > 0 {
				s.count(code(a), i+MinDelay, n)
			}
		}
	}
}

// Airport is a row of the result. Sums are in minutes.
type Airport struct {
	Code       string
	Departures int64
	Delay      int64 // sum of all delays; early arrivals count as negative
	Worst      int64 // number of departures in the worst decile: a tenth of all, rounded up
	WorstDelay int64 // sum of the delays of those, the largest ones
}

// Mean is the mean delay in minutes, with one decimal.
func (a Airport) Mean() string { return tenths(a.Delay, a.Departures) }

// WorstMean is the mean delay of the worst decile in minutes, with one decimal.
func (a Airport) WorstMean() string { return tenths(a.WorstDelay, a.Worst) }

// tenths formats sum/n with one decimal, halves rounded away from zero.
func tenths(sum, n int64) string {
	if n == 0 {
		return "0.0"
	}
	sign := ""
	if sum < 0 {
		sign, sum = "-", -sum
	}
	t := (2*10*sum + n) / (2 * n)
	if t == 0 {
		sign = ""
	}
	return fmt.Sprintf("%s%d.%d", sign, t/10, t%10)
}

// Airports returns the airports with departures, the busiest first, equally
// busy ones by code.
func (s *Summary) Airports() []Airport {
	var all []Airport
	for a, counts := range s.counts {
		if r := airport(counts); r.Departures > 0 {
			r.Code = code(a).String()
			all = append(all, r)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Departures > all[j].Departures })
	return all
}

func airport(counts []uint32) Airport {
	var r Airport
	for i, n := range counts {
		r.Departures += int64(n)
		r.Delay += int64(n) * int64(i+MinDelay)
	}
	r.Worst = (r.Departures + 9) / 10
	left := r.Worst
	for i := len(counts) - 1; left > 0; i-- {
		n := min(int64(counts[i]), left)
		r.WorstDelay += n * int64(i+MinDelay)
		left -= n
	}
	return r
}

// CSVHeader is the first line of the result's CSV form.
const CSVHeader = "airport,departures,mean_delay,worst_decile"

// CSV returns the airports as text: CSVHeader and a line for each. Delays are
// minutes with one decimal.
func CSV(all []Airport) []byte {
	var b bytes.Buffer
	b.WriteString(CSVHeader + "\n")
	for _, a := range all {
		fmt.Fprintf(&b, "%s,%d,%s,%s\n", a.Code, a.Departures, a.Mean(), a.WorstMean())
	}
	return b.Bytes()
}
