package e2e

import (
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
)

// slowJob splits files over providers and keeps each part busy for a while.
func slowJob(t *testing.T, asker *testNode, source perigee.CID, millions string) perigee.Job {
	return perigee.Job{
		Wasm:   &perigee.Wasm{Module: asker.addPath(t, program(t, "spin"), false).CID.String(), Args: []string{"-n", millions, "/in"}},
		Inputs: []perigee.Input{{Source: source.String(), Split: "file"}},
		Reuse:  "off",
	}
}

// exactlyOnce checks that a finished job took one result for each part, and
// returns the concatenated outputs.
func exactlyOnce(t *testing.T, n *testNode, st perigee.JobStatus) string {
	t.Helper()
	completed(t, st)
	accepted := map[int]int{}
	var out strings.Builder
	for _, x := range st.Executions {
		if x.Accepted {
			accepted[x.Part]++
			out.WriteString(n.read(t, x.Output.String()+"/stdout"))
		}
	}
	for i := range st.Parts {
		if accepted[i] != 1 {
			t.Errorf("part %d has %d accepted results", i, accepted[i])
		}
	}
	return out.String()
}

// everywhere puts the same files, in place, on several nodes.
func everywhere(t *testing.T, files map[string]string, nodes ...*testNode) perigee.CID {
	t.Helper()
	var c perigee.CID
	for _, n := range nodes {
		c = n.addPath(t, tree(t, files), true).CID
	}
	return c
}

// running waits until a job has an execution running at a node.
func running(t *testing.T, asker *testNode, id string, at perigee.PeerID) {
	t.Helper()
	eventually(t, 30*time.Second, "an execution runs", func() error {
		st, err := asker.Job(t.Context(), id)
		if err != nil {
			return err
		}
		for _, x := range st.Executions {
			if x.State == perigee.ExecRunning && x.Provider == at {
				return nil
			}
		}
		if st.State.Final() {
			t.Fatalf("the job ended before: %+v", st)
		}
		return perigee.NotFound
	})
}

func TestProviderKilledInMidExecution(t *testing.T) {
	nodes := startNetwork(t, 3)
	source := everywhere(t, someFiles(6), nodes[1], nodes[2])
	id, err := nodes[0].Submit(t.Context(), slowJob(t, nodes[0], source, "300"), "")
	if err != nil {
		t.Fatal(err)
	}
	running(t, nodes[0], id, nodes[1].id)
	nodes[1].kill()
	out := exactlyOnce(t, nodes[0], nodes[0].waitJob(t, id, 90*time.Second))
	if strings.Count(out, "/in/log-") != 6 {
		t.Errorf("output: %s", out)
	}
}

// TestProviderRestarts kills the only provider of the data; it takes its leases
// up again and the job ends without a second attempt elsewhere.
func TestProviderRestarts(t *testing.T) {
	nodes := startNetwork(t, 2)
	source := everywhere(t, someFiles(3), nodes[1])
	id, err := nodes[0].Submit(t.Context(), slowJob(t, nodes[0], source, "200"), "")
	if err != nil {
		t.Fatal(err)
	}
	running(t, nodes[0], id, nodes[1].id)
	nodes[1].kill()
	nodes[1].start()
	exactlyOnce(t, nodes[0], nodes[0].waitJob(t, id, 90*time.Second))
}

// TestRequesterKilledAtRandomMoments kills and restarts the requester twenty
// times while one job runs.
func TestRequesterKilledAtRandomMoments(t *testing.T) {
	nodes := startNetwork(t, 3)
	source := everywhere(t, someFiles(24), nodes[1], nodes[2])
	id, err := nodes[0].Submit(t.Context(), slowJob(t, nodes[0], source, "250"), "the-key")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewSource(7))
	for range 20 {
		time.Sleep(time.Duration(rnd.Intn(400)) * time.Millisecond)
		nodes[0].kill()
		nodes[0].start()
	}
	out := exactlyOnce(t, nodes[0], nodes[0].waitJob(t, id, 2*time.Minute))
	if strings.Count(out, "/in/log-") != 24 {
		t.Errorf("output: %s", out)
	}
	again, err := nodes[0].Submit(t.Context(), slowJob(t, nodes[0], source, "250"), "the-key")
	if err != nil || again != id {
		t.Errorf("the same idempotency key gave %q (%v), want %q", again, err, id)
	}
}

func TestLiarIsOutvoted(t *testing.T) {
	honest := startNetwork(t, 3)
	liar := startNode(t, peer(honest[0]), binary(binaries.liar), env("PERIGEE_LIE=42\n"))
	waitOffers(t, honest[0], 4)
	source := everywhere(t, someFiles(4), honest[1], honest[2], liar)
	for _, verify := range []perigee.Verify{{Mode: "replicate", Copies: 3, Quorum: 2}, {Mode: "audit"}} {
		t.Run(verify.Mode, func(t *testing.T) {
			// The honest results may agree before the liar's arrives: then it is not
			// needed and not looked at. Sooner or later it is there in time.
			for range 10 {
				if outvote(t, honest[0], liar, source, verify) {
					return
				}
			}
			t.Error("no execution of the liar ended in ten jobs")
		})
	}
}

// outvote runs a job that the liar takes part in, and reports whether one of
// the liar's results was caught.
func outvote(t *testing.T, asker, liar *testNode, source perigee.CID, verify perigee.Verify) (caught bool) {
	t.Helper()
	job := slowJob(t, asker, source, "1")
	job.Verify = verify
	st := asker.runJob(t, job)
	out := exactlyOnce(t, asker, st)
	if strings.Contains(out, "\n42\n") {
		t.Errorf("the lie got through: %s", out)
	}
	for _, x := range st.Executions {
		if x.Provider != liar.id || x.State != perigee.ExecCompleted {
			continue
		}
		if x.Accepted {
			t.Errorf("part %d took the liar's result", x.Part)
		}
		if x.Error == nil || x.Error.Kind != perigee.Corrupt {
			t.Errorf("the liar's result for part %d is not marked: %+v", x.Part, x)
		}
		caught = true
	}
	return caught
}

func TestFileChangedUnderTheIndex(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	dir := tree(t, someFiles(2))
	data := n.addPath(t, dir, true)
	path := filepath.Join(dir, "log-01.txt")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[10] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	job := slowJob(t, n, data.CID, "1")
	job.Attempts = 2
	st := n.runJob(t, job)
	if st.State != perigee.JobFailed || st.Error == nil || !strings.Contains(st.Error.Message, "log-01.txt") {
		t.Errorf("the job ended %s: %+v", st.State, st.Error)
	}
	for _, x := range st.Executions {
		if x.Part == 1 && x.State == perigee.ExecCompleted {
			t.Errorf("a result was computed on changed bytes")
		}
	}
}

// TestStalledProvider stops a provider without closing its connections.
func TestStalledProvider(t *testing.T) {
	nodes := startNetwork(t, 3)
	source := everywhere(t, someFiles(6), nodes[1], nodes[2])
	id, err := nodes[0].Submit(t.Context(), slowJob(t, nodes[0], source, "300"), "")
	if err != nil {
		t.Fatal(err)
	}
	running(t, nodes[0], id, nodes[1].id)
	if err := nodes[1].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer nodes[1].cmd.Process.Signal(syscall.SIGCONT)
	exactlyOnce(t, nodes[0], nodes[0].waitJob(t, id, 90*time.Second))
}

// TestWorkerKilled kills the process in which a guest runs: one attempt fails
// and is made again, the node goes on.
func TestWorkerKilled(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	source := everywhere(t, someFiles(1), n)
	id, err := n.Submit(t.Context(), slowJob(t, n, source, "600"), "")
	if err != nil {
		t.Fatal(err)
	}
	running(t, n, id, n.id)
	time.Sleep(200 * time.Millisecond)
	for _, pid := range children(t, n.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	st := n.waitJob(t, id, time.Minute)
	exactlyOnce(t, n, st)
	if len(st.Executions) < 2 || st.Executions[0].State != perigee.ExecFailed {
		t.Errorf("executions: %+v", st.Executions)
	}
}

// TestCorruptHolder has two holders of an input, one of which sends corrupt
// blocks: the job gets right bytes from the other. Where only the corrupt one
// holds the data, the job fails and says so.
func TestCorruptHolder(t *testing.T) {
	asker := startNode(t)
	corrupt := startNode(t, peer(asker), binary(binaries.liar), env("PERIGEE_CORRUPT=1"))
	honest := startNode(t, peer(asker))
	waitOffers(t, asker, 3)
	big := randomFile(t, 5<<20)
	both := corrupt.addPath(t, big, true)
	honest.addPath(t, big, true)
	job := slowJob(t, asker, both.CID, "1")
	job.Placement.Exclude = []string{string(corrupt.id), string(honest.id)} // the bytes must travel
	want := exactlyOnce(t, honest, honest.runJob(t, slowJob(t, honest, both.CID, "1")))
	if out := exactlyOnce(t, asker, asker.runJob(t, job)); out != want {
		t.Errorf("the output is %q, want %q", out, want)
	}

	alone := corrupt.addPath(t, randomFile(t, 3<<20), true)
	job = slowJob(t, asker, alone.CID, "1")
	job.Placement.Exclude = []string{string(corrupt.id), string(honest.id)}
	job.Attempts = 1
	st := asker.runJob(t, job)
	if st.State != perigee.JobFailed || !strings.Contains(st.Error.Message, corrupt.id.Short()) {
		t.Errorf("the job over corrupt blocks is %s: %+v", st.State, st.Error)
	}
}

// TestAnyoneKilledAtRandomMoments kills and restarts requester and providers in
// turn while a job with a merge runs.
func TestAnyoneKilledAtRandomMoments(t *testing.T) {
	nodes := startNetwork(t, 3)
	source := everywhere(t, someFiles(16), nodes[1], nodes[2])
	job := slowJob(t, nodes[0], source, "200")
	job.Merge = &perigee.Wasm{Module: nodes[0].addPath(t, program(t, "concat"), false).CID.String()}
	job.Attempts = 12 // every kill may cost an attempt
	id, err := nodes[0].Submit(t.Context(), job, "")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewSource(11))
	for range 12 {
		time.Sleep(time.Duration(rnd.Intn(500)) * time.Millisecond)
		victim := nodes[rnd.Intn(3)]
		victim.kill()
		victim.start()
	}
	st := nodes[0].waitJob(t, id, 2*time.Minute)
	exactlyOnce(t, nodes[0], st)
	if out := nodes[0].read(t, st.Output.String()+"/stdout"); strings.Count(out, "/in/log-") != 16 || strings.Count(out, "done") != 16 {
		t.Errorf("the merge saw: %s", out)
	}
}

// TestStragglerIsHedged stops the guests of one provider, but not the provider:
// their parts run a second time elsewhere.
func TestStragglerIsHedged(t *testing.T) {
	nodes := startNetwork(t, 3)
	source := everywhere(t, someFiles(8), nodes[1], nodes[2])
	job := slowJob(t, nodes[0], source, "150")
	job.Placement.Exclude = []string{string(nodes[0].id)}
	id, err := nodes[0].Submit(t.Context(), job, "")
	if err != nil {
		t.Fatal(err)
	}
	// Once most parts are done, what runs at one provider stands still.
	eventually(t, time.Minute, "some parts are done", func() error {
		st, err := nodes[0].Job(t.Context(), id)
		if err == nil && st.Done < 4 {
			err = perigee.NotFound
		}
		return err
	})
	for _, pid := range children(t, nodes[1].cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		defer syscall.Kill(pid, syscall.SIGKILL)
	}
	st := nodes[0].waitJob(t, id, 90*time.Second)
	exactlyOnce(t, nodes[0], st)
	for _, x := range st.Executions {
		if x.Attempts > 1 && x.Accepted && x.Provider == nodes[2].id {
			return // a second execution, elsewhere, gave the result
		}
	}
	for _, x := range st.Executions {
		if x.Provider == nodes[1].id && !x.Accepted {
			t.Errorf("a stopped execution was not hedged: %+v", x)
		}
	}
}
