package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// buildCommand builds the programs, as `make build` does, and the command with them
// inside, and returns the command.
var buildCommand = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "perigee-demo-test-")
	if err != nil {
		return "", err
	}
	binaries = dir
	for _, name := range []string{"flights", "flightsmerge"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join("assets", name+".wasm"), "./"+name)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
	}
	binary := filepath.Join(dir, "perigee")
	out, err := exec.Command("go", "build", "-o", binary, "../cmd/perigee").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
})

var binaries string // where buildCommand put what it built

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries != "" {
		os.RemoveAll(binaries)
	}
	os.Exit(code)
}

// command prepares the demo with a temporary directory of its own, which it
// must leave empty.
func command(t *testing.T, ctx context.Context, args ...string) (cmd *exec.Cmd, tmp string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a network of processes")
	}
	binary, err := buildCommand()
	require.NoError(t, err)
	tmp = t.TempDir()
	cmd = exec.CommandContext(ctx, binary, append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	return cmd, tmp
}

// requireGone checks that neither files nor processes are left.
func requireGone(t *testing.T, tmp string, r *Report) {
	t.Helper()
	entries, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, entries, "files are left behind")
	if r == nil {
		return
	}
	for _, n := range r.Nodes {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID))
		require.False(t, err == nil && bytes.Contains(args, []byte(tmp)), "%s still runs as process %d", n.Name, n.PID)
	}
}

// The demo holds what it promises, and its table is that of the plain
// computation.
func TestDemo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd, tmp := command(t, ctx, "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s", &stderr)
	var r Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))

	want, err := reference()
	require.NoError(t, err)
	var got strings.Builder
	got.WriteString("airport,departures,mean_delay,worst_decile\n")
	for _, row := range r.Table {
		fmt.Fprintf(&got, "%s,%d,%s,%s\n", row.Airport, row.Departures, row.MeanDelay, row.WorstDecile)
	}
	require.Equal(t, want, got.String())

	require.Len(t, r.Nodes, 5)
	require.Less(t, r.MovedShare, 0.01)
	require.Equal(t, 7, r.Receipts, "six parts and the merge")
	require.Equal(t, r.Receipts, r.ReceiptsValid)
	require.Equal(t, r.Again.Parts, r.Again.Reused)
	require.Zero(t, r.Again.Fuel)
	require.Len(t, r.Next, 3)
	var held, read int64
	for _, n := range r.Nodes {
		require.Positive(t, n.Parts, "%s did nothing", n.Name)
		require.Zero(t, n.Fetched, "%s fetched input", n.Name)
		held += n.Held
		read += n.Read
	}
	require.Equal(t, r.Input, held)
	require.Equal(t, r.Input, read, "every byte was read where it lay")
	requireGone(t, tmp, &r)
}

// Ctrl-C at any time ends the demo and leaves nothing behind.
func TestDemoInterrupted(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "while nodes start": 100 * time.Millisecond, "later": 900 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			cmd, tmp := command(t, ctx, "--keep")
			var log bytes.Buffer
			cmd.Stdout, cmd.Stderr = &log, &log
			require.NoError(t, cmd.Start())
			time.Sleep(wait)
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			_ = cmd.Wait() // the exit code depends on how far it came
			require.NoError(t, ctx.Err(), "it does not end\n%s", &log)
			requireGone(t, tmp, nil)
		})
	}
}

// With --keep the network stays up, and the commands that the demo proposes
// work on it.
func TestDemoKeep(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd, tmp := command(t, ctx, "--keep", "--json", "--nodes", "2")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var r Report
	pipe := bufio.NewReader(stdout)
	err = json.NewDecoder(pipe).Decode(&r)
	if err != nil {
		_ = cmd.Wait()
	}
	require.NoError(t, err, "%s", &stderr)
	for _, line := range r.Next {
		words := strings.Fields(line)
		out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
		require.NoError(t, err, "%s\n%s", line, out)
		if words[1] == "run" {
			require.Contains(t, string(out), "1000000 departures from 228 airports")
		}
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, pipe)
	require.NoError(t, cmd.Wait(), "%s", &stderr)
	requireGone(t, tmp, &r)
}

// A node that cannot start is told with its own words.
func TestDemoTellsWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd, tmp := command(t, ctx, "--nodes", "100")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "between 1 and 32 nodes")
	requireGone(t, tmp, nil)

	_, err = Run(ctx, Options{Nodes: 1, Binary: "/bin/false"})
	require.ErrorContains(t, err, "node0")
}
