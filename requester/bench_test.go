package requester_test

import (
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

// BenchmarkTinyJob runs small jobs one after the other, without a network and
// without a disk to wait for.
func BenchmarkTinyJob(b *testing.B) {
	n := newBench(b)
	module := n.add(wasmtest.C(b, "hello"))
	for i := range b.N {
		n.tiny(b, module, i)
	}
}

// BenchmarkTinyJobs runs them sixteen at a time.
func BenchmarkTinyJobs(b *testing.B) {
	n := newBench(b)
	module := n.add(wasmtest.C(b, "hello"))
	var i atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n.tiny(b, module, int(i.Add(1)))
		}
	})
}

func (b *bench) tiny(t *testing.B, module string, i int) {
	id, err := b.Submit(t.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: module, Args: []string{strconv.Itoa(i)}}}, "")
	require.NoError(t, err)
	st, err := b.Wait(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, perigee.JobCompleted, st.State)
}
