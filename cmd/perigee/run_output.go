package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/perigee-network/perigee/client"
)

// maxHeldLine bounds an unfinished line of a part, in bytes.
const maxHeldLine = 64 << 10

// guestOutput prints what a job's programs write. The output of a single part,
// and of a merge, passes through as it is. Of several parts whole lines are
// printed, so that they do not run into each other, with the part before each
// on a terminal. When a merge follows, the parts' standard output is its input
// and is not printed.
type guestOutput struct {
	a        *app
	c        *client.Client
	id       string
	merged   bool
	meter    *meter
	out, err io.Writer

	mu    sync.Mutex
	parts int
	held  map[heldLine][]byte
}

type heldLine struct {
	part, stream int
	label        string
}

func newGuestOutput(a *app, id string, merged bool) *guestOutput {
	g := &guestOutput{a: a, id: id, merged: merged, out: a.out, err: a.errOut, held: map[heldLine][]byte{}}
	if a.json { // standard output is one JSON document then
		g.out = a.errOut
	}
	return g
}

// attach names the node to ask about the job, and the meter that is on screen.
func (g *guestOutput) attach(c *client.Client, m *meter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.c, g.meter = c, m
}

// setParts tells how many parts the job has, once it is known.
func (g *guestOutput) setParts(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n > 0 {
		g.parts = n
	}
}

func (g *guestOutput) write(ctx context.Context, chunk client.LogChunk) error {
	parts, err := g.known(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case chunk.Merge:
		return g.raw(chunk.Stream, chunk.Data)
	case g.merged && chunk.Stream == client.Stdout:
		return nil
	case parts <= 1:
		return g.raw(chunk.Stream, chunk.Data)
	}
	return g.lines(chunk)
}

// known returns the number of parts, asking if no event told it yet.
func (g *guestOutput) known(ctx context.Context) (int, error) {
	g.mu.Lock()
	n := g.parts
	g.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	st, err := g.c.Job(ctx, g.id)
	if err != nil {
		return 0, err
	}
	g.setParts(st.Parts)
	return st.Parts, nil
}

func (g *guestOutput) raw(stream int, data []byte) error {
	g.meter.clear()
	w := g.err
	if stream == client.Stdout {
		w = g.out
	}
	_, err := w.Write(data)
	return written(err)
}

// lines prints the whole lines of a part and keeps what follows the last.
func (g *guestOutput) lines(chunk client.LogChunk) error {
	key := heldLine{chunk.Part, chunk.Stream, chunk.Label}
	data := append(g.held[key], chunk.Data...)
	end := bytes.LastIndexByte(data, '\n') + 1
	if end == 0 && len(data) > maxHeldLine {
		end = len(data)
	}
	if end > 0 {
		if err := g.print(key, data[:end]); err != nil {
			return err
		}
	}
	if rest := data[end:]; len(rest) > 0 {
		g.held[key] = append([]byte{}, rest...)
	} else {
		delete(g.held, key)
	}
	return nil
}

func (g *guestOutput) print(key heldLine, data []byte) error {
	tty := g.a.errTTY
	if key.stream == client.Stdout {
		tty = g.a.outTTY
	}
	if !tty {
		return g.raw(key.stream, data)
	}
	prefix := fmt.Sprintf("[%d] ", key.part)
	if key.label != "" {
		prefix = "[" + key.label + "] "
	}
	var b bytes.Buffer
	for line := range bytes.Lines(data) {
		b.WriteString(prefix)
		b.Write(line)
	}
	return g.raw(key.stream, b.Bytes())
}

// flush prints lines that never ended.
func (g *guestOutput) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, rest := range g.held {
		if g.print(key, append(rest, '\n')) != nil {
			return
		}
	}
	clear(g.held)
}
