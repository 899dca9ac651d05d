package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

// TestProviderBehindARelay runs a job between two nodes that listen nowhere
// and reach each other only through a relay.
func TestProviderBehindARelay(t *testing.T) {
	relay := startNode(t, flags("--relay"))
	hidden := startNode(t, func(n *testNode) { n.hidden = true }, peer(relay), flags("--relay-peer", relay.addr))
	// Were only one of them hidden, it would dial the other after they met.
	asker := startNode(t, func(n *testNode) { n.hidden = true }, peer(relay), flags("--relay-peer", relay.addr))
	waitOffers(t, asker, 3)
	source := everywhere(t, someFiles(2), hidden)
	job := slowJob(t, asker, source, "1")
	job.Placement.Exclude = []string{string(relay.id), string(asker.id)}
	exactlyOnce(t, asker, asker.runJob(t, job))
	peers, err := asker.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if p.ID == hidden.id && !p.Relayed {
			t.Errorf("the asker reached the hidden node directly at %v; neither listens", p.Addrs)
		}
	}
}

// TestPrivateNetwork lets nodes with one key work together and keeps a node
// without it out.
func TestPrivateNetwork(t *testing.T) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	psk := filepath.Join(t.TempDir(), "swarm.key")
	if err := os.WriteFile(psk, fmt.Appendf(nil, "/key/swarm/psk/1.0.0/\n/base16/\n%s\n", hex.EncodeToString(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	inside := startNetwork(t, 2, flags("--private-key-file", psk))
	source := everywhere(t, someFiles(2), inside[1])
	exactlyOnce(t, inside[0], inside[0].runJob(t, slowJob(t, inside[0], source, "1")))

	outside := startNode(t)
	r := perigeeCmd(t, outside.home, "connect", inside[0].addr)
	if r.code != 5 {
		t.Errorf("a node without the key connected: code %d, %s", r.code, r.stderr)
	}
}

// TestLargeOutputStaysAtItsProviderUntilAsked reads an output that does not
// travel with the completion.
func TestLargeOutputStaysAtItsProviderUntilAsked(t *testing.T) {
	nodes := startNetwork(t, 2)
	path := randomFile(t, 6<<20)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	input := nodes[1].addPath(t, path, true)
	st := nodes[0].runJob(t, perigee.Job{
		Wasm:   &perigee.Wasm{Module: nodes[0].addPath(t, wasmtest.C(t, "cat"), false).CID.String(), Args: []string{"/in"}},
		Inputs: []perigee.Input{{Source: input.CID.String()}},
	})
	completed(t, st)
	dest := filepath.Join(t.TempDir(), "results")
	ok(t, nodes[0].home, "job", "results", st.ID, "-o", dest)
	got, err := os.ReadFile(filepath.Join(dest, "stdout"))
	if err != nil || string(got) != string(want) {
		t.Errorf("the result has %d bytes, want %d (%v)", len(got), len(want), err)
	}
	if out := ok(t, nodes[0].home, "job", "logs", st.ID); out != string(want) {
		t.Errorf("the log has %d bytes, want %d", len(out), len(want))
	}
}

// TestInterruptCancelsTheJob presses Ctrl-C under `perigee run`.
func TestInterruptCancelsTheJob(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	cmd := exec.Command(binaries.perigee, "run", program(t, "spin"), "--", "-n", "100000")
	cmd.Env = append(os.Environ(), "PERIGEE_HOME="+n.home)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the job runs", func() error {
		st, err := n.Status(t.Context())
		if err == nil && st.Running == 0 {
			err = perigee.NotFound
		}
		return err
	})
	_ = cmd.Process.Signal(syscall.SIGINT)
	err := cmd.Wait()
	if err == nil || !strings.Contains(stderr.String(), "cancel") {
		t.Errorf("the command ended with %v: %s", err, stderr.String())
	}
	eventually(t, 10*time.Second, "nothing runs any more", func() error {
		st, err := n.Status(t.Context())
		if err == nil && st.Running+st.Jobs > 0 {
			err = fmt.Errorf("%d executions, %d jobs", st.Running, st.Jobs)
		}
		return err
	})
	jobs, err := n.Jobs(t.Context(), 1)
	if err != nil || jobs[0].State != perigee.JobCancelled {
		t.Errorf("the job is %+v (%v)", jobs, err)
	}
}
