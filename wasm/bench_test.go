package wasm

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
	"github.com/stretchr/testify/require"
)

func benchmarkRun(b *testing.B, task Task) {
	e := newEngineForTest(b, 1)
	run := func() *Outcome {
		o, err := e.Run(context.Background(), task)
		require.NoError(b, err)
		require.Zero(b, o.ExitCode)
		return o
	}
	o := run()
	o.Close()
	b.ResetTimer()
	for range b.N {
		o := run()
		o.Close()
	}
	b.ReportMetric(float64(o.Fuel), "fuel/op")
}

// BenchmarkTinyC and BenchmarkTinyGo measure the least an execution costs.
func BenchmarkTinyC(b *testing.B)  { benchmarkRun(b, taskOf(b, wasmtest.C(b, "hello"))) }
func BenchmarkTinyGo(b *testing.B) { benchmarkRun(b, taskOf(b, wasmtest.Go(b, "hello"))) }

// BenchmarkHostCalls reports the time of 100,000 clock calls.
func BenchmarkHostCalls(b *testing.B) {
	benchmarkRun(b, taskOf(b, wasmtest.C(b, "evil"), "calls", "100000"))
}

// BenchmarkRead measures a program that reads 256 MiB of an indexed file.
func BenchmarkRead(b *testing.B) {
	const size, extent = 256 << 20, 1 << 20
	path := filepath.Join(b.TempDir(), "data")
	block := make([]byte, extent)
	v := perigee.FileView{Size: size}
	f, err := os.Create(path)
	require.NoError(b, err)
	for off := int64(0); off < size; off += extent {
		block[0]++
		_, err := f.Write(block)
		require.NoError(b, err)
		v.Extents = append(v.Extents, perigee.Extent{Length: extent, Sum: sha256.Sum256(block), Path: path, Offset: off})
	}
	require.NoError(b, f.Close())
	task := taskOf(b, wasmtest.C(b, "sum"), "/data")
	task.Mounts = []Mount{{"/data", fileTree(v)}}
	b.SetBytes(size)
	benchmarkRun(b, task)
}

// BenchmarkSHA256 is the limit of this machine for BenchmarkRead on one CPU.
func BenchmarkSHA256(b *testing.B) {
	block := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for range b.N {
		sha256.Sum256(block)
	}
}
