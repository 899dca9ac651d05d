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

func (n *bench) tiny(b *testing.B, module string, i int) {
	id, err := n.Submit(b.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: module, Args: []string{strconv.Itoa(i)}}}, "")
	require.NoError(b, err)
	st, err := n.Wait(b.Context(), id)
	require.NoError(b, err)
	require.Equal(b, perigee.JobCompleted, st.State)
}
