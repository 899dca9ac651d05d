package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/perigee-network/perigee"
)

// board shows a running job: on a terminal a line with a bar for each node,
// redrawn in place; elsewhere a line for each part as it ends.
type board struct {
	w        io.Writer
	terminal bool
	names    map[perigee.PeerID]string
	nodes    []NodeReport
	drawn    string          // what is on the terminal now
	told     map[string]bool // executions already told as lines
}

func newBoard(w io.Writer, terminal bool, nodes []NodeReport) *board {
	b := &board{w: w, terminal: terminal, nodes: nodes, names: map[perigee.PeerID]string{}, told: map[string]bool{}}
	for _, n := range nodes {
		b.names[n.Peer] = n.Name
	}
	return b
}

// update shows where the job stands.
func (b *board) update(s perigee.JobStatus) {
	if b.terminal {
		b.bars(s)
	} else {
		b.lines(s)
	}
}

// finish shows the last state.
func (b *board) finish(s perigee.JobStatus) { b.update(s) }

func (b *board) lines(s perigee.JobStatus) {
	for _, e := range s.Executions {
		if !e.State.Final() || b.told[e.ID] {
			continue
		}
		b.told[e.ID] = true
		what := fmt.Sprintf("part %d (%s)", e.Part, e.Label)
		if e.Merge {
			what = "merge"
		}
		if e.State == perigee.ExecCompleted {
			fmt.Fprintf(b.w, "%s: %s done in %s\n", b.name(e.Provider), what, secondsText(executionTime(e).Seconds()))
		} else {
			fmt.Fprintf(b.w, "%s: %s %s\n", b.name(e.Provider), what, e.State)
		}
	}
}

func (b *board) name(p perigee.PeerID) string {
	if n := b.names[p]; n != "" {
		return n
	}
	return p.Short()
}

// barWidth is the width of a full bar, in columns.
const barWidth = 24

func (b *board) bars(s perigee.JobStatus) {
	type count struct {
		all, done, running int
		longest            time.Duration // of those that run
		merge              string
	}
	counts := map[perigee.PeerID]*count{}
	for _, n := range b.nodes {
		counts[n.Peer] = &count{}
	}
	for _, e := range s.Executions {
		c := counts[e.Provider]
		switch {
		case c == nil:
		case e.Merge:
			c.merge = "merge " + string(e.State)
			if e.State == perigee.ExecRunning {
				c.merge += fmt.Sprintf(" for %.1f s", runningFor(e).Seconds())
			}
		default:
			c.all++
			if e.State == perigee.ExecCompleted {
				c.done++
			} else if e.State == perigee.ExecRunning {
				c.running++
				c.longest = max(c.longest, runningFor(e))
			}
		}
	}
	var out strings.Builder
	for _, n := range b.nodes {
		c := counts[n.Peer]
		filled := 0
		if c.all > 0 {
			filled = barWidth * c.done / c.all
		}
		fmt.Fprintf(&out, "%-7s [%s%s] %d/%d parts", n.Name, strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled), c.done, c.all)
		if c.running > 0 {
			fmt.Fprintf(&out, ", %d running for %.1f s", c.running, c.longest.Seconds())
		}
		if c.merge != "" {
			out.WriteString(", " + c.merge)
		}
		out.WriteString("\x1b[K\n") // clears what a longer line left
	}
	text := out.String()
	if text == b.drawn {
		return
	}
	if b.drawn != "" {
		fmt.Fprintf(b.w, "\x1b[%dA", len(b.nodes)) // to the first line of the board
	}
	b.drawn = text
	_, _ = io.WriteString(b.w, text) // progress is a courtesy
}

// runningFor is how long an execution runs by now; its start may be by the
// clock of another machine.
func runningFor(e perigee.ExecutionStatus) time.Duration {
	if e.Started == nil {
		return 0
	}
	return max(time.Since(*e.Started), 0)
}
