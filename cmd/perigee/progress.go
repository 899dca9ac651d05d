package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/perigee-network/perigee/client"
)

// meter tells how a long operation comes along: as a bar on a terminal, else as
// a line every few seconds. It says nothing of what is done at once. It is safe
// for concurrent use.
type meter struct {
	w     io.Writer
	tty   bool
	label string
	unit  func(int64) string
	begin time.Time

	mu    sync.Mutex
	next  time.Time
	drawn int // width of the bar on the screen
	done  bool
}

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 24
)

// newMeter begins a meter of bytes.
func (a *app) newMeter(label string) *meter {
	m := &meter{w: a.errOut, tty: a.errTTY, label: label, unit: bytesText, begin: time.Now()}
	m.next = m.begin.Add(m.every() * 3)
	if !m.tty {
		m.next = m.begin.Add(lineEvery)
	}
	return m
}

func (m *meter) every() time.Duration {
	if m.tty {
		return barEvery
	}
	return lineEvery
}

// bytes takes progress as the client reports it.
func (m *meter) bytes(p client.Progress) { m.set(p.Done, p.Total, "") }

// set tells how far the operation is; total 0 means that nobody knows.
func (m *meter) set(done, total int64, more string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.done || now.Before(m.next) || !m.tty && total > 0 && done >= total {
		return
	}
	m.next = now.Add(m.every())
	m.draw(m.text(done, total, now.Sub(m.begin), more))
}

func (m *meter) text(done, total int64, elapsed time.Duration, more string) string {
	var b strings.Builder
	b.WriteString(m.label)
	rate := float64(done) / max(elapsed.Seconds(), 1e-3)
	if total > 0 {
		part := min(float64(done)/float64(total), 1)
		if m.tty {
			full := int(part * barWidth)
			fmt.Fprintf(&b, " [%s%s]", strings.Repeat("█", full), strings.Repeat("·", barWidth-full))
		}
		fmt.Fprintf(&b, " %3.0f%%  %s of %s", part*100, m.unit(done), m.unit(total))
	} else {
		b.WriteString("  " + m.unit(done))
	}
	if rate > 0 && done > 0 {
		if rate >= 1 {
			fmt.Fprintf(&b, "  %s/s", m.unit(int64(rate)))
		}
		if left := float64(total-done) / rate; total > done && left < 1e6 {
			fmt.Fprintf(&b, "  %s left", (time.Duration(left) * time.Second).String())
		}
	}
	if more != "" {
		b.WriteString("  " + more)
	}
	return b.String()
}

func (m *meter) draw(text string) {
	if !m.tty {
		fmt.Fprintln(m.w, text)
		return
	}
	fmt.Fprintf(m.w, "\r%s\x1b[K", text)
	m.drawn = len(text)
}

// clear takes the bar off the screen, so that something else can be printed;
// the next set draws it again.
func (m *meter) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wipe()
}

func (m *meter) wipe() {
	if m.drawn > 0 {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.drawn = 0
	}
}

// end takes the bar away for good.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	m.wipe()
}
