package wasm

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if IsWorker() {
		os.Exit(WorkerMain())
	}
	if part := os.Getenv(envPart); part != "" {
		os.Exit(playPart(part))
	}
	code := m.Run()
	if shared != nil {
		shared.Close()
	}
	os.Exit(code)
}

var plenty = perigee.Limits{Memory: 512 << 20, Fuel: 1e12, Disk: 1 << 30, Files: 10000}

func newEngineForTest(t testing.TB, workers int) *Engine {
	t.Helper()
	e, err := New(Config{CacheDir: t.TempDir(), Workers: workers})
	require.NoError(t, err)
	t.Cleanup(func() { e.Close() })
	return e
}

// shared is an engine for tests that need none of their own, with a cache that
// outlives the test.
var shared *Engine

func sharedEngine(t testing.TB) *Engine {
	t.Helper()
	if shared == nil {
		e, err := New(Config{CacheDir: wasmtest.CacheDir(t), Workers: 2})
		require.NoError(t, err)
		shared = e
	}
	return shared
}

// taskOf returns a task that runs the module at path.
func taskOf(t testing.TB, path string, args ...string) Task {
	t.Helper()
	binary, err := os.ReadFile(path)
	require.NoError(t, err)
	return taskOfBytes(binary, args...)
}

func taskOfBytes(binary []byte, args ...string) Task {
	return Task{Module: perigee.SumCID(perigee.CodecRaw, binary), Args: args, Limits: plenty, Timeout: time.Minute,
		Load: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(binary)), nil }}
}

func read(t testing.TB, o *Outcome, path string) string {
	t.Helper()
	e := o.Entry(path)
	require.NotNil(t, e, path)
	r, err := e.Open()
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.EqualValues(t, e.Size, len(b))
	return string(b)
}

func mustRun(t testing.TB, e *Engine, task Task) *Outcome {
	t.Helper()
	o, err := e.Run(context.Background(), task)
	require.NoError(t, err)
	t.Cleanup(func() { o.Close() })
	return o
}

func TestHello(t *testing.T) {
	e := sharedEngine(t)
	for _, path := range []string{wasmtest.C(t, "hello"), wasmtest.Go(t, "hello")} {
		task := taskOf(t, path, "big", "world")
		var live bytes.Buffer
		task.Stdout = func(p []byte) { live.Write(p) }
		o := mustRun(t, e, task)
		require.Equal(t, "hello big world\n", read(t, o, "stdout"))
		require.Equal(t, "hello big world\n", live.String())
		require.Zero(t, o.ExitCode)
		require.Positive(t, o.Fuel)
		require.Positive(t, o.PeakMemory)
	}
	require.Contains(t, e.Sandbox(), "separate process")
}

func TestExitCode(t *testing.T) {
	for code, arg := range map[int]string{0: "0", 1: "1", 42: "42", 255: "255"} {
		require.Equal(t, code, mustRun(t, sharedEngine(t), taskOf(t, wasmtest.C(t, "exit"), arg)).ExitCode)
	}
}

func TestInputs(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	tree, _ := indexTree(t, 100_000, map[string]string{
		"a.txt": "first\n", "dir/b.txt": "second\n", "dir/deep/c.inline": big, "empty": "",
		"link@": "dir/b.txt", "up@": "../../../in/a.txt", "abs@": "/in/dir", "outside@": "/etc/passwd",
	})
	view := viewOf(filepath.Join(t.TempDir(), "x"), []byte("0123456789"), 4)
	require.NoError(t, os.WriteFile(view.Extents[0].Path, []byte("0123456789"), 0o644))
	view.Skip, view.Size = 3, 5
	for _, c := range []struct{ args, want string }{
		{"/in/a.txt /in/dir/b.txt", "first\nsecond\n"},
		{"/in/dir/deep/c.inline", big},
		{"/in/empty", ""},
		{"/in/link /in/up /in/abs/b.txt", "second\nfirst\nsecond\n"},
		{"in/a.txt /../in/./dir/../a.txt", "first\nfirst\n"},
		{"/part", "34567"},
		{"/in/dir/inner/a.txt", "first\n"},
	} {
		task := taskOf(t, wasmtest.C(t, "cat"), strings.Fields(c.args)...)
		task.Mounts = []Mount{{"/part", fileTree(view)}, {"/in/dir/inner", tree}, {"/in", tree}}
		o := mustRun(t, sharedEngine(t), task)
		require.Equal(t, "", read(t, o, "stderr"))
		require.True(t, c.want == read(t, o, "stdout"), c.args)
		require.EqualValues(t, len(c.want), o.BytesRead)
	}
	task := taskOf(t, wasmtest.C(t, "cat"), "/in/outside")
	task.Mounts = []Mount{{"/in", tree}}
	o := mustRun(t, sharedEngine(t), task)
	require.Equal(t, 1, o.ExitCode)
	require.Equal(t, "/in/outside: No such file or directory\n", read(t, o, "stderr"))
}

func TestScratch(t *testing.T) {
	task := taskOf(t, wasmtest.C(t, "scratch"))
	task.Outputs = []string{"/out", "/a/b"}
	o := mustRun(t, sharedEngine(t), task)
	require.Equal(t, "", read(t, o, "stderr"))
	require.Equal(t, "ok\n", read(t, o, "stdout"))
	var paths []string
	for _, e := range o.Entries {
		paths = append(paths, e.Path)
	}
	require.Equal(t, []string{"a/b", "out", "out/sparse", "out/tree", "out/tree/empty", "out/tree/file", "out/tree/link", "stderr", "stdout"}, paths)
	file := read(t, o, "out/tree/file")
	require.Len(t, file, 200000)
	for i := range file {
		if file[i] != byte(i*7+i/251) {
			t.Fatalf("byte %d is %d", i, file[i])
		}
	}
	sparse := []byte(read(t, o, "out/sparse"))
	require.Len(t, sparse, 2000000)
	require.Equal(t, byte('x'), sparse[1000000])
	sparse[1000000] = 0
	require.True(t, bytes.Equal(sparse, make([]byte, 2000000)))
	require.Equal(t, "file", o.Entry("out/tree/link").Target)
}

func TestWordcount(t *testing.T) {
	tree, _ := indexTree(t, 1000, map[string]string{"x": strings.Repeat("a b c ", 1000), "y/z": strings.Repeat("b ", 500)})
	task := taskOf(t, wasmtest.Go(t, "wordcount"), "/in", "/out/counts")
	task.Mounts = []Mount{{"/in", tree}}
	task.Outputs = []string{"/out"}
	o := mustRun(t, sharedEngine(t), task)
	require.Equal(t, "", read(t, o, "stderr"))
	require.Equal(t, "1000 a\n1500 b\n1000 c\n", read(t, o, "out/counts"))
}

// TestSpill writes more than a worker keeps in memory and reads it back.
func TestSpill(t *testing.T) {
	task := taskOf(t, wasmtest.C(t, "evil"), "write", "100000000")
	task.Outputs = []string{"/out"}
	o := mustRun(t, sharedEngine(t), task)
	r, err := o.Entry("out/big").Open()
	require.NoError(t, err)
	n, buf := 0, make([]byte, 1<<20)
	for {
		k, err := r.Read(buf)
		require.Equal(t, k, bytes.Count(buf[:k], []byte("x")))
		if n += k; err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	require.EqualValues(t, o.Entry("out/big").Size, n)
	require.GreaterOrEqual(t, n, 100000000)
}

func TestLiveOutput(t *testing.T) {
	task := taskOf(t, wasmtest.C(t, "evil"), "print", "3000000")
	var mu sync.Mutex
	total, pieces, largest := 0, 0, 0
	task.Stdout = func(p []byte) {
		mu.Lock()
		defer mu.Unlock()
		total, pieces, largest = total+len(p), pieces+1, max(largest, len(p))
	}
	o := mustRun(t, sharedEngine(t), task)
	require.EqualValues(t, o.Entry("stdout").Size, total)
	require.LessOrEqual(t, largest, maxLiveChunk)
	require.Greater(t, pieces, 1)
}

func TestDeterminism(t *testing.T) {
	files := map[string]string{}
	for _, n := range []string{"z", "a", "m", "sub/q", "B", "é"} {
		files[n] = strings.Repeat(n, 100)
	}
	for _, c := range []struct {
		name, path string
		contains   []string
	}{
		{"C", wasmtest.C(t, "determinism"), []string{"realtime 1577836800.", "after an hour 1577840400.", "A=1\nB=2\nPWD=/in\n", "/in/a ino="}},
		{"Go", wasmtest.Go(t, "determinism"), []string{"2020-01-01T00:00:00.", "[A=1 B=2 PWD=/in]", "a 100 "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var first string
			var fuel int64
			third, err := New(Config{CacheDir: wasmtest.CacheDir(t), Workers: 1})
			require.NoError(t, err)
			defer third.Close()
			engines := []*Engine{sharedEngine(t), newEngineForTest(t, 1), third}
			for i := range 20 {
				tree, _ := indexTree(t, 30+i, files) // however it is cut into blocks
				task := taskOf(t, c.path, "/in", "/", "/tmp")
				task.Mounts, task.Outputs, task.Workdir = []Mount{{"/in", tree}}, []string{"/out"}, "/in"
				task.Env = map[string]string{"B": "2", "A": "1"}
				task.Seed[0] = 7
				o := mustRun(t, engines[i%3], task)
				require.Zero(t, o.ExitCode, read(t, o, "stderr"))
				text := read(t, o, "stdout") + read(t, o, "stderr") + read(t, o, "out/report.txt")
				if i == 0 {
					first, fuel = text, o.Fuel
					for _, want := range c.contains {
						require.Contains(t, text, want)
					}
				}
				require.Equal(t, first, text)
				require.Equal(t, fuel, o.Fuel)
			}
			task := taskOf(t, c.path)
			task.Seed[0] = 8
			require.NotEqual(t, first, read(t, mustRun(t, engines[0], task), "stdout"), "another seed, other numbers")
		})
	}
}

func TestConcurrent(t *testing.T) {
	e := newEngineForTest(t, 3)
	path := wasmtest.C(t, "hello")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			o, err := e.Run(context.Background(), taskOf(t, path, strings.Repeat("x", i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer o.Close()
			if got, want := read(t, o, "stdout"), "hello "+strings.Repeat("x", i)+"\n"; got != want {
				t.Errorf("%q, not %q", got, want)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, len(e.Pids()), 3)
}

func TestTimeoutAndCancel(t *testing.T) {
	e := newEngineForTest(t, 1)
	task := taskOf(t, wasmtest.C(t, "evil"), "loop")
	task.Timeout = 100 * time.Millisecond
	_, err := e.Run(context.Background(), task)
	require.ErrorIs(t, err, perigee.Timeout)
	require.EqualError(t, err, "the timeout of 100ms was reached and the program stopped; raise resources.timeout or give it less work")

	task.Timeout = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = e.Run(ctx, task)
	require.ErrorIs(t, err, perigee.Cancelled)

	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = e.Run(ctx, task)
	require.ErrorIs(t, err, perigee.Timeout)

	// One who waits for a worker can be cancelled too, and the next is served.
	started, done := make(chan struct{}), make(chan error)
	ctx, cancel = context.WithCancel(context.Background())
	go func() {
		long := taskOf(t, wasmtest.C(t, "evil"), "loop")
		close(started)
		_, err := e.Run(ctx, long)
		done <- err
	}()
	<-started
	time.Sleep(50 * time.Millisecond)
	short, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	_, err = e.Run(short, taskOf(t, wasmtest.C(t, "exit"), "0"))
	require.ErrorIs(t, err, perigee.Timeout)
	cancel()
	require.ErrorIs(t, <-done, perigee.Cancelled)
	mustRun(t, e, taskOf(t, wasmtest.C(t, "exit"), "0"))
}

func TestKilledWorker(t *testing.T) {
	e := newEngineForTest(t, 2)
	mustRun(t, e, taskOf(t, wasmtest.C(t, "exit"), "0"))
	done := make(chan error)
	go func() {
		_, err := e.Run(context.Background(), taskOf(t, wasmtest.C(t, "evil"), "loop"))
		done <- err
	}()
	var err error
	for deadline := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(deadline); {
		for _, pid := range e.Pids() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case err = <-done:
		case <-time.After(100 * time.Millisecond):
		}
	}
	require.ErrorIs(t, err, perigee.Unavailable)
	require.Contains(t, err.Error(), "worker killed by signal 9")
	mustRun(t, e, taskOf(t, wasmtest.C(t, "exit"), "0"))
}

func TestClose(t *testing.T) {
	e := newEngineForTest(t, 1)
	mustRun(t, e, taskOf(t, wasmtest.C(t, "exit"), "0"))
	pids := e.Pids()
	require.NotEmpty(t, pids)
	loop := taskOf(t, wasmtest.C(t, "evil"), "loop")
	require.NoError(t, e.Check(context.Background(), loop.Module, loop.Load))
	done := make(chan error)
	go func() {
		_, err := e.Run(context.Background(), loop)
		done <- err
	}()
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, e.Close())
	require.ErrorIs(t, <-done, perigee.Unavailable)
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, err := e.Run(context.Background(), taskOf(t, wasmtest.C(t, "exit"), "0"))
	require.ErrorIs(t, err, perigee.Unavailable)
}
