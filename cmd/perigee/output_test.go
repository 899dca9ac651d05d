package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee/client"
)

// feed gives a job's output to a guestOutput as it might arrive.
func feed(t *testing.T, parts int, merged, tty bool, chunks ...client.LogChunk) (out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	a := newApp(strings.NewReader(""), &o, &e)
	a.outTTY = tty
	g := newGuestOutput(a, "id", merged)
	g.attach(nil, a.newMeter("running"))
	g.setParts(parts)
	for _, c := range chunks {
		require.NoError(t, g.write(t.Context(), c))
	}
	g.flush()
	return o.String(), e.String()
}

func chunk(part, stream int, data string) client.LogChunk {
	return client.LogChunk{Part: part, Stream: stream, Label: "f" + string(rune('0'+part)), Data: []byte(data)}
}

func TestGuestOutput(t *testing.T) {
	// One part passes through byte by byte.
	out, errOut := feed(t, 1, false, true, chunk(0, client.Stdout, "a\x00"), chunk(0, client.Stderr, "e"), chunk(0, client.Stdout, "b"))
	require.Equal(t, "a\x00b", out)
	require.Equal(t, "e", errOut)

	// Several parts' lines do not run into each other.
	several := []client.LogChunk{chunk(0, client.Stdout, "one "), chunk(1, client.Stdout, "two\nthr"), chunk(0, client.Stdout, "more\n"), chunk(1, client.Stdout, "ee")}
	out, _ = feed(t, 2, false, false, several...)
	require.Equal(t, "two\none more\nthree\n", out)
	out, _ = feed(t, 2, false, true, several...)
	require.Equal(t, "[f1] two\n[f0] one more\n[f1] three\n", out)

	// With a merge only its standard output is printed.
	merge := chunk(2, client.Stdout, "sum")
	merge.Merge = true
	out, errOut = feed(t, 2, true, false, chunk(0, client.Stdout, "part\n"), chunk(0, client.Stderr, "warning\n"), merge)
	require.Equal(t, "sum", out)
	require.Equal(t, "warning\n", errOut)

	// A line without end does not fill the memory.
	out, _ = feed(t, 2, false, false, chunk(0, client.Stdout, strings.Repeat("x", maxHeldLine+1)))
	require.Len(t, out, maxHeldLine+1)
}

func TestTable(t *testing.T) {
	var b strings.Builder
	tab := newTable("NAME", ">SIZE", "WHAT")
	tab.row("ä", "1 B", "x")
	tab.row("longer", "10 KiB", "")
	tab.print(&b)
	require.Equal(t, "NAME      SIZE  WHAT\nä          1 B  x\nlonger  10 KiB\n", b.String())
}

func TestMeter(t *testing.T) {
	var b bytes.Buffer
	m := newApp(nil, nil, &b).newMeter("adding")
	m.bytes(client.Progress{Done: 1, Total: 2})
	require.Empty(t, b.String(), "what is quick is not worth a line")
	text := m.text(512<<10, 1<<20, time.Second, "")
	require.Equal(t, "adding  50%  512 KiB of 1.0 MiB  512 KiB/s  1s left", text)
	require.Equal(t, "adding  512 KiB  512 KiB/s", m.text(512<<10, 0, time.Second, ""))
}
