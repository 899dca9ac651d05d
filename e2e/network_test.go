// Package e2e tests the real binary as its users run it: many processes on
// loopback, talked to through the command line and the HTTP API, killed, stopped
// and restarted.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// binaries are built once for all tests.
var binaries struct{ dir, perigee, liar string }

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "perigee-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries.dir = dir
		binaries.perigee = filepath.Join(dir, "perigee")
		binaries.liar = filepath.Join(dir, "perigee-liar")
		for _, args := range [][]string{
			{"build", "-o", binaries.perigee, "../cmd/perigee"},
			{"build", "-tags", "perigee_liar", "-o", binaries.liar, "../cmd/perigee"},
		} {
			if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(args, " "), err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

// testNode is a node process of a test's network.
type testNode struct {
	t      *testing.T
	home   string
	args   []string
	env    []string
	bin    string
	hidden bool // listens nowhere
	cmd    *exec.Cmd
	log    *os.File
	done   chan struct{}
	*client.Client
	id   perigee.PeerID
	addr string
}

type option func(*testNode)

// peer makes a node stay connected to another.
func peer(of *testNode) option {
	return func(n *testNode) { n.args = append(n.args, "--peer", of.addr) }
}

func flags(args ...string) option { return func(n *testNode) { n.args = append(n.args, args...) } }
func binary(path string) option   { return func(n *testNode) { n.bin = path } }
func env(kv string) option        { return func(n *testNode) { n.env = append(n.env, kv) } }

// startNode starts a node on loopback and waits until it answers. It is killed
// when the test ends; its log is shown when the test failed.
func startNode(t *testing.T, opts ...option) *testNode {
	t.Helper()
	n := &testNode{t: t, home: filepath.Join(t.TempDir(), "home"), bin: binaries.perigee}
	for _, o := range opts {
		o(n)
	}
	n.start()
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			b, _ := os.ReadFile(n.log.Name())
			if len(b) > 8000 {
				b = b[len(b)-8000:]
			}
			t.Logf("log of node %s:\n%s", n.id, b)
		}
	})
	return n
}

// start runs the process over the node's home.
func (n *testNode) start() {
	n.t.Helper()
	args := append([]string{"serve", "--home", n.home, "--api-listen", "127.0.0.1:0", "--mdns=false", "--log-level", "debug"}, n.args...)
	listen := "/ip4/127.0.0.1/tcp/0"
	if n.hidden {
		listen = "none"
	} else if n.addr != "" { // the same port again, so that peers find it
		listen = n.addr[:strings.Index(n.addr, "/p2p/")]
	}
	args = append(args, "--listen", listen)
	n.cmd = exec.Command(n.bin, args...)
	n.cmd.Env = append(os.Environ(), n.env...)
	var err error
	if n.log, err = os.OpenFile(n.home+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(n.cmd, n.done)
	eventually(n.t, 30*time.Second, "the node answers", func() error {
		select {
		case <-n.done:
			b, _ := os.ReadFile(n.log.Name())
			n.t.Fatalf("the node ended: %s", b)
		default:
		}
		c, err := client.FromHome(n.home)
		if err != nil {
			return err
		}
		st, err := c.Status(n.t.Context())
		if err != nil {
			return err
		}
		if n.Client, n.id = c, st.PeerID; n.hidden {
			return nil
		}
		if len(st.Addrs) == 0 {
			return errors.New("no address yet")
		}
		n.addr = st.Addrs[0]
		return nil
	})
}

// kill ends the process at once, as a power cut would.
func (n *testNode) kill() {
	_ = n.cmd.Process.Kill()
	<-n.done
}

// startNetwork starts count nodes, all connected to the first, and waits until
// the first knows every offer.
func startNetwork(t *testing.T, count int, opts ...option) []*testNode {
	t.Helper()
	nodes := []*testNode{startNode(t, opts...)}
	for range count - 1 {
		nodes = append(nodes, startNode(t, append([]option{peer(nodes[0])}, opts...)...))
	}
	waitOffers(t, nodes[0], count)
	return nodes
}

func waitOffers(t *testing.T, n *testNode, count int) {
	t.Helper()
	eventually(t, 20*time.Second, "the offers are known", func() error {
		offers, err := n.Providers(t.Context(), "")
		if err == nil && len(offers) < count {
			err = fmt.Errorf("%d offers of %d", len(offers), count)
		}
		return err
	})
}

// eventually tries fn until it returns nil.
func eventually(t *testing.T, limit time.Duration, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s: %v", limit, what, err)
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// result is how a command of the real binary ended.
type result struct {
	code           int
	stdout, stderr string
}

// perigeeCmd runs the binary with a time limit.
func perigeeCmd(t *testing.T, home string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binaries.perigee, args...)
	cmd.Env = append(os.Environ(), "PERIGEE_HOME="+home)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	r := result{stdout: out.String(), stderr: errb.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("perigee %s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("perigee %s did not end\n%s", strings.Join(args, " "), r.stderr)
	}
	return r
}

// ok runs a command that must succeed and returns its standard output.
func ok(t *testing.T, home string, args ...string) string {
	t.Helper()
	r := perigeeCmd(t, home, args...)
	if r.code != 0 {
		t.Fatalf("perigee %s ended with %d:\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// decode reads the one JSON document of a command's output.
func decode[T any](t *testing.T, s string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, s)
	}
	return v
}

// addPath adds a file or directory to a node.
func (n *testNode) addPath(t *testing.T, path string, inPlace bool) client.Added {
	t.Helper()
	a, err := n.Add(t.Context(), path, client.AddOptions{InPlace: inPlace}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// runJob submits a job and waits for its end.
func (n *testNode) runJob(t *testing.T, job perigee.Job) perigee.JobStatus {
	t.Helper()
	id, err := n.Submit(t.Context(), job, "")
	if err != nil {
		t.Fatal(err)
	}
	return n.waitJob(t, id, time.Minute)
}

func (n *testNode) waitJob(t *testing.T, id string, limit time.Duration) perigee.JobStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	st, err := n.Wait(ctx, id)
	if err != nil {
		now, _ := n.Job(t.Context(), id)
		t.Fatalf("job %s did not end within %s: %v\n%+v", id, limit, err, now)
	}
	return st
}

// completed fails the test unless the job completed.
func completed(t *testing.T, st perigee.JobStatus) {
	t.Helper()
	if st.State != perigee.JobCompleted {
		b, _ := json.MarshalIndent(st, "", "  ")
		t.Fatalf("job %s is %s: %s", st.ID, st.State, b)
	}
}

// read returns a file below a CID path, as the node gives it.
func (n *testNode) read(t *testing.T, path string) string {
	t.Helper()
	r, err := n.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
