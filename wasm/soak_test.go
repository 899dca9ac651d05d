package wasm

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
	"github.com/stretchr/testify/require"
)

// TestPages reads a directory and a file that need several answers of the node.
func TestPages(t *testing.T) {
	files := map[string]string{}
	for i := range entriesPerPage + 1000 {
		files[fmt.Sprintf("%06d", i)] = ""
	}
	tree, _ := indexTree(t, 1, files)
	task := taskOf(t, wasmtest.Go(t, "determinism"), "/in")
	task.Mounts, task.Outputs = []Mount{{"/in", tree}}, []string{"/out"}
	o := mustRun(t, sharedEngine(t), task)
	require.Equal(t, len(files), strings.Count(read(t, o, "stdout"), "-rw-"), read(t, o, "stderr"))

	long := strings.Repeat("0123456789", extentsPerPage)
	tree, _ = indexTree(t, 4, map[string]string{"long": long, "long.inline": long})
	task = taskOf(t, wasmtest.C(t, "cat"), "/in/long", "/in/long.inline")
	task.Mounts = []Mount{{"/in", tree}}
	require.True(t, long+long == read(t, mustRun(t, sharedEngine(t), task), "stdout"))
}

// TestTurns writes two large files in turns, whose bytes then lie in more pieces
// than one message can name.
func TestTurns(t *testing.T) {
	const pieces = runsPerMessage + 500
	task := taskOf(t, wasmtest.C(t, "evil"), "turns", fmt.Sprint(pieces))
	task.Outputs, task.Limits.Disk = []string{"/out"}, 4<<30
	task.Limits.Fuel = 1e13
	o := mustRun(t, sharedEngine(t), task)
	for _, name := range []string{"out/a", "out/b"} {
		require.EqualValues(t, pieces<<16, o.Entry(name).Size)
		r, err := o.Entry(name).Open()
		require.NoError(t, err)
		buf := make([]byte, 1<<16)
		for i := range pieces {
			_, err := io.ReadFull(r, buf)
			require.NoError(t, err)
			if buf[0] != byte(i) || buf[len(buf)-1] != byte(i) {
				t.Fatalf("piece %d of %s is not what was written", i, name)
			}
		}
	}
}

// TestLiveWhileRunning hears a program that never ends.
func TestLiveWhileRunning(t *testing.T) {
	task := taskOf(t, wasmtest.C(t, "evil"), "talk")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	heard := ""
	task.Stdout = func(p []byte) {
		heard += string(p)
		cancel()
	}
	_, err := sharedEngine(t).Run(ctx, task)
	require.ErrorIs(t, err, perigee.Cancelled)
	require.Equal(t, "I am here\n", heard)
}

// TestNothingLeaks runs many guests in one worker and looks at its descriptors,
// this process's and its memory.
func TestNothingLeaks(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	e := newEngineForTest(t, 1)
	tree, _ := indexTree(t, 1000, map[string]string{"a": strings.Repeat("x", 5000), "b": "y"})
	run := func(n int) {
		for range n {
			task := taskOf(t, wasmtest.C(t, "cat"), "/in/a", "/in/b")
			task.Mounts = []Mount{{"/in", tree}}
			o, err := e.Run(context.Background(), task)
			require.NoError(t, err)
			o.Close()
		}
		task := taskOf(t, wasmtest.C(t, "evil"), "write", "50000000")
		task.Outputs = []string{"/out"}
		o, err := e.Run(context.Background(), task)
		require.NoError(t, err)
		o.Close()
	}
	run(50)
	pid := e.Pids()[0]
	count := func(pid int) int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		require.NoError(t, err)
		return len(list)
	}
	worker, own := count(pid), count(os.Getpid())
	run(300)
	require.Equal(t, []int{pid}, e.Pids(), "the same worker served them all")
	// The Go runtime opens two of its own when it first needs them.
	require.Eventually(t, func() bool { return count(pid) <= worker+2 }, 10*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool { return count(os.Getpid()) <= own+2 }, 10*time.Second, 10*time.Millisecond)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "Threads") {
			t.Log(line)
		}
	}
}
