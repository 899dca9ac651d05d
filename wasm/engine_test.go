package wasm

import (
	"bytes"
	"context"
	"io"
	"os"
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
	os.Exit(m.Run())
}

var plenty = perigee.Limits{Memory: 512 << 20, Fuel: 1e12, Disk: 1 << 30, Files: 10000}

func newEngineForTest(t testing.TB, workers int) *Engine {
	t.Helper()
	e, err := New(Config{CacheDir: t.TempDir(), Workers: workers})
	require.NoError(t, err)
	t.Cleanup(func() { e.Close() })
	return e
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

func TestHello(t *testing.T) {
	e := newEngineForTest(t, 1)
	task := taskOf(t, wasmtest.C(t, "hello"), "big", "world")
	var live bytes.Buffer
	task.Stdout = func(p []byte) { live.Write(p) }
	o, err := e.Run(context.Background(), task)
	require.NoError(t, err)
	defer o.Close()
	require.Equal(t, "hello big world\n", read(t, o, "stdout"))
	require.Equal(t, "hello big world\n", live.String())
	require.Zero(t, o.ExitCode)
	require.Positive(t, o.Fuel)
	t.Logf("fuel %d wall %v cpu %v sandbox %s", o.Fuel, o.Wall, o.CPU, e.Sandbox())
}
