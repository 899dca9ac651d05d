package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/perigee-network/perigee"
)

// Report is what a run of the demo did and found; `perigee demo --json` prints
// it. Sizes are bytes, times seconds.
type Report struct {
	Nodes   []NodeReport `json:"nodes"`
	Dataset string       `json:"dataset"` // OWNER/NAME
	Tables  int          `json:"tables"`
	Flights int64        `json:"flights"`
	Input   int64        `json:"input_bytes"`

	Job     string      `json:"job"`
	Output  perigee.CID `json:"output"`
	Seconds float64     `json:"seconds"`
	Fuel    int64       `json:"fuel"`
	Merge   MergeReport `json:"merge"`
	// Moved counts every byte that any execution fetched from another node:
	// input, and for the merge the parts' results.
	Moved      int64   `json:"moved_bytes"`
	MovedShare float64 `json:"moved_share"` // of Input

	Table []Row `json:"table"` // every airport, the busiest first

	Receipts      int      `json:"receipts"`
	ReceiptsValid int      `json:"receipts_valid"`
	BadReceipts   []string `json:"bad_receipts,omitempty"`

	Again AgainReport `json:"again"`
	Home  string      `json:"home"` // of the network; gone when it is not kept
	Next  []string    `json:"next"` // commands to try

	anyReceipt perigee.CID
}

// NodeReport is what one node did for the job's parts.
type NodeReport struct {
	Name    string         `json:"name"`
	Peer    perigee.PeerID `json:"peer_id"`
	Region  string         `json:"region"`
	PID     int            `json:"pid"`
	Tables  int            `json:"tables"`
	Held    int64          `json:"held_bytes"` // input that lies on it
	Parts   int            `json:"parts"`
	Read    int64          `json:"bytes_read"` // where they lay
	Fetched int64          `json:"bytes_fetched"`
	Fuel    int64          `json:"fuel"`
	Seconds float64        `json:"seconds"` // of its executions together
}

// MergeReport is what the merge did.
type MergeReport struct {
	Node    string  `json:"node"`
	Read    int64   `json:"bytes_read"`
	Fetched int64   `json:"bytes_fetched"`
	Fuel    int64   `json:"fuel"`
	Seconds float64 `json:"seconds"`
}

// AgainReport is what the same job did when it was asked for again.
type AgainReport struct {
	Job     string  `json:"job"`
	Parts   int     `json:"parts"`
	Reused  int     `json:"reused"`
	Fuel    int64   `json:"fuel"`
	Same    bool    `json:"same_output"`
	Seconds float64 `json:"seconds"`
}

// Row is an airport of the result. Delays are minutes with one decimal; the
// worst decile is the mean of the largest tenth of the delays.
type Row struct {
	Airport     string `json:"airport"`
	Departures  int64  `json:"departures"`
	MeanDelay   string `json:"mean_delay"`
	WorstDecile string `json:"worst_decile"`
}

// account adds what a finished job's executions did.
func (r *Report) account(status perigee.JobStatus) {
	byPeer := map[perigee.PeerID]*NodeReport{}
	for i := range r.Nodes {
		byPeer[r.Nodes[i].Peer] = &r.Nodes[i]
	}
	for _, e := range status.Executions {
		r.Moved += e.BytesFetched // also of attempts whose result was not taken
		n := byPeer[e.Provider]
		if n == nil || !e.Accepted {
			continue
		}
		r.Fuel += e.Fuel
		if e.Merge {
			r.Merge = MergeReport{Node: n.Name, Read: e.BytesRead, Fetched: e.BytesFetched, Fuel: e.Fuel, Seconds: executionTime(e).Seconds()}
			continue
		}
		n.Parts++
		n.Read += e.BytesRead
		n.Fetched += e.BytesFetched
		n.Fuel += e.Fuel
		n.Seconds += executionTime(e).Seconds()
	}
	if r.Input > 0 {
		r.MovedShare = float64(r.Moved) / float64(r.Input)
	}
}

func executionTime(e perigee.ExecutionStatus) time.Duration {
	if e.Started == nil || e.Finished == nil {
		return 0
	}
	return e.Finished.Sub(*e.Started)
}

// verdict says what did not hold, nil when all did.
func (r *Report) verdict() error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if r.MovedShare >= maxMoved {
		fault("%.2f %% of the input moved between nodes; less than %.0f %% should", 100*r.MovedShare, 100*maxMoved)
	}
	if r.Receipts == 0 || r.ReceiptsValid != r.Receipts {
		fault("%d of %d receipts verify: %s", r.ReceiptsValid, r.Receipts, strings.Join(r.BadReceipts, "; "))
	}
	departures := int64(0)
	for _, row := range r.Table {
		departures += row.Departures
	}
	if departures != r.Flights {
		fault("the table counts %d departures of %d flights", departures, r.Flights)
	}
	switch a := r.Again; {
	case a.Reused < a.Parts || a.Fuel > 0:
		fault("the second run computed again: %d of %d parts were reused, %d fuel spent", a.Reused, a.Parts, a.Fuel)
	case !a.Same:
		fault("the second run gave another output")
	}
	if len(faults) == 0 {
		return nil
	}
	return perigee.E("demo.Run", perigee.Internal, "the demo did not hold: %s", strings.Join(faults, "; "))
}

// shown is how many airports are printed.
const shown = 15

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\n%-8s %-9s %-7s %6s %15s %10s %15s %8s\n", "node", "peer", "region", "parts", "read in place", "fetched", "fuel", "time")
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "%-8s %-9s %-7s %6d %15s %10s %15s %8s\n", n.Name, n.Peer.Short(), n.Region, n.Parts, bytesText(n.Read), bytesText(n.Fetched), thousands(n.Fuel), secondsText(n.Seconds))
	}
	m := r.Merge
	fmt.Fprintf(w, "%-8s %-9s %-7s %6s %15s %10s %15s %8s\n", "merge", "on "+m.Node, "", "", bytesText(m.Read), bytesText(m.Fetched), thousands(m.Fuel), secondsText(m.Seconds))

	fmt.Fprintf(w, "time includes compiling the programs, which the nodes of this machine share\n")

	fmt.Fprintf(w, "\n%-9s %10s %12s %14s\n", "airport", "departures", "mean delay", "worst decile")
	for _, row := range r.Table[:min(shown, len(r.Table))] {
		fmt.Fprintf(w, "%-9s %10s %12s %14s\n", row.Airport, thousands(row.Departures), row.MeanDelay, row.WorstDecile)
	}
	fmt.Fprintf(w, "%d airports in all; delays in minutes; worst decile: the mean of an airport's largest tenth\n", len(r.Table))

	fmt.Fprintf(w, "\nInput       %s on %d nodes; %s moved between them: %.2f %%\n", bytesText(r.Input), len(r.Nodes), bytesText(r.Moved), 100*r.MovedShare)
	fmt.Fprintf(w, "Time        %s for %s flights\n", secondsText(r.Seconds), thousands(r.Flights))
	fmt.Fprintf(w, "Receipts    %d of %d verify offline\n", r.ReceiptsValid, r.Receipts)
	for _, bad := range r.BadReceipts {
		fmt.Fprintf(w, "            %s\n", bad)
	}
	fmt.Fprintf(w, "Same again  %s: %d of %d parts reused, %s fuel spent\n", secondsText(r.Again.Seconds), r.Again.Reused, r.Again.Parts, thousands(r.Again.Fuel))
	fmt.Fprintf(w, "\nTry next:\n")
	for _, c := range r.Next {
		fmt.Fprintf(w, "  %s\n", c)
	}
}

// thousands prints n with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText prints a number of bytes with a decimal unit.
func bytesText(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

func secondsText(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.1f ms", 1000*s)
	}
	return fmt.Sprintf("%.2f s", s)
}

func since(t time.Time) string { return secondsText(time.Since(t).Seconds()) }
