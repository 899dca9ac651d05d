package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

// TestSandbox sends hostile programs through the whole system: each is refused
// or stopped with an error that names the limit, and the node goes on.
func TestSandbox(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	dir := tree(t, map[string]string{"a.txt": "hello\n", "dir/b.txt": "b\n"})
	for name, target := range map[string]string{"absolute": "/etc/passwd", "relative": "../../../../etc/passwd", "loop": "loop", "root": "/"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	input := n.addPath(t, dir, true).CID.String()
	module := n.addPath(t, wasmtest.C(t, "evil"), false).CID.String()
	hello := n.addPath(t, wasmtest.C(t, "hello"), false).CID.String()
	small := perigee.Resources{Memory: 64 << 20, Disk: 64 << 20, Files: 1000, Fuel: 2e9, Timeout: perigee.Duration(20 * time.Second)}
	for _, c := range []struct {
		name string
		args []string
		res  func(*perigee.Resources)
		want []string // in the error; none: the program itself must report failure of every attempt
	}{
		{"escapes", []string{"escape"}, nil, nil},
		{"truncation of inputs", []string{"truncate"}, nil, nil},
		{"a million files", []string{"files", "1000000"}, func(r *perigee.Resources) { r.Fuel = 1e12 }, []string{"1000", "resources.files"}},
		{"a 5 GB output", []string{"write", "5000000000"}, func(r *perigee.Resources) { r.Fuel = 1e12 }, []string{"64 MiB", "resources.disk"}},
		{"5 GB of prints", []string{"print", "5000000000"}, func(r *perigee.Resources) { r.Fuel = 1e12 }, []string{"64 MiB", "resources.disk"}},
		{"endless loop, by fuel", []string{"loop"}, nil, []string{"fuel", "resources.fuel"}},
		{"endless loop, by time", []string{"loop"}, func(r *perigee.Resources) { r.Fuel = 1e18; r.Timeout = perigee.Duration(2 * time.Second) }, []string{"2s", "resources.timeout"}},
		{"memory growth", []string{"memory", "4000000000"}, nil, []string{"64 MiB", "resources.memory"}},
		{"deep recursion", []string{"recurse"}, func(r *perigee.Resources) { r.Fuel = 1e12 }, []string{"stack"}},
		{"host call storm", []string{"hostcalls"}, nil, []string{"fuel", "resources.fuel"}},
		{"abort", []string{"abort"}, nil, []string{"trap"}},
		{"wild pointer", []string{"wild"}, nil, []string{"memory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := small
			if c.res != nil {
				c.res(&res)
			}
			beside, err := n.Submit(t.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: hello}, Reuse: "off"}, "")
			if err != nil {
				t.Fatal(err)
			}
			st := n.runJob(t, perigee.Job{
				Wasm:      &perigee.Wasm{Module: module, Args: c.args},
				Inputs:    []perigee.Input{{Source: input}},
				Outputs:   []string{"/out"},
				Resources: res,
				Attempts:  1,
				Reuse:     "off",
			})
			completed(t, n.waitJob(t, beside, time.Minute))
			if c.want == nil { // the program exits with 0 when nothing it tried worked
				completed(t, st)
				return
			}
			if st.State != perigee.JobFailed || st.Error == nil {
				t.Fatalf("the job is %s", st.State)
			}
			for _, w := range c.want {
				if !strings.Contains(st.Error.Message, w) {
					t.Errorf("the error does not name %q: %s", w, st.Error.Message)
				}
			}
		})
	}
}
