package e2e

import (
	"fmt"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

// TestDeterminism runs programs that print the time, random numbers, the order
// of a map and a directory listing twenty times over three nodes: all bytes, the
// fuel and the job key must be equal.
func TestDeterminism(t *testing.T) {
	nodes := startNetwork(t, 3)
	source := everywhere(t, someFiles(5), nodes...)
	for name, module := range map[string]string{"C": wasmtest.C(t, "determinism"), "Go": wasmtest.Go(t, "determinism")} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]int{}
			where := map[perigee.PeerID]int{}
			for i := range 20 {
				asker := nodes[i%3]
				st := asker.runJob(t, perigee.Job{
					Wasm:    &perigee.Wasm{Module: asker.addPath(t, module, false).CID.String(), Args: []string{"/in", "/"}, Env: map[string]string{"B": "2", "A": "1"}},
					Inputs:  []perigee.Input{{Source: source.String()}},
					Outputs: []string{"/out"},
					Reuse:   "off",
					// Each node in turn, whatever the planner would choose.
					Placement: perigee.Placement{Exclude: []string{string(nodes[(i+1)%3].id), string(nodes[(i+2)%3].id)}},
				})
				completed(t, st)
				x := st.Executions[0]
				where[x.Provider]++
				seen[fmt.Sprintf("output %s fuel %d key %s", x.Output, x.Fuel, x.JobKey)]++
			}
			if len(seen) != 1 {
				t.Errorf("20 runs gave %d different results: %v", len(seen), seen)
			}
			if len(where) != 3 {
				t.Errorf("the runs were spread over %d nodes: %v", len(where), where)
			}
		})
	}
}
