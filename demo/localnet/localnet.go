// Package localnet runs perigee nodes as separate processes on this machine,
// each with a home of its own, that reach nothing but loopback. The demo and
// the benchmark are built on it.
package localnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

const (
	startTime = 60 * time.Second // for a node to answer after its start
	stopTime  = 10 * time.Second // for a node to end after it was asked to
	tailBytes = 4 << 10          // of a failed node's log
)

// Options say how a node is started.
type Options struct {
	Binary  string   // the perigee executable
	Home    string   // made if it does not exist
	Region  string   // such as EU/DE; "" for none
	Provide string   // as `perigee init --provide` takes it; "" for the default
	Modules string   // directory of compiled modules to share; "" for one of its own
	Peers   []string // multiaddrs to connect to
}

// Node is a running node process. Its methods are safe for concurrent use.
type Node struct {
	Client *client.Client
	Status client.Status // as it was right after the start
	Home   string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process ended
	once sync.Once
}

// Start initialises a home and starts a node in it, and returns once the node
// answers. The error of a node that does not come up ends with the last lines
// of its log. Stop the node when done.
func Start(ctx context.Context, o Options) (*Node, error) {
	const op = "localnet.Start"
	if err := initialise(ctx, o); err != nil {
		return nil, err
	}
	args := []string{"serve", "--home", o.Home, "--listen", "/ip4/127.0.0.1/tcp/0", "--api-listen", "127.0.0.1:0", "--mdns=false"}
	if o.Modules != "" {
		args = append(args, "--modules", o.Modules)
	}
	for _, p := range o.Peers {
		args = append(args, "--peer", p)
	}
	log, err := os.Create(filepath.Join(o.Home, "serve.log"))
	if err != nil {
		return nil, perigee.E(op, perigee.Internal, err, "cannot keep the node's log")
	}
	defer log.Close() // the child has its own descriptor
	cmd := exec.Command(o.Binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment(o.Home)
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return nil, perigee.E(op, perigee.Internal, err, "cannot start %s", o.Binary)
	}
	n := &Node{Home: o.Home, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is told by its log
		close(n.done)
	}()
	if err := n.await(ctx); err != nil {
		n.Stop()
		return nil, err
	}
	return n, nil
}

// environment is this process's without the settings that would lead the
// command to another node.
func environment(home string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PERIGEE_") {
			env = append(env, kv)
		}
	}
	return append(env, "PERIGEE_HOME="+home)
}

func initialise(ctx context.Context, o Options) error {
	if err := os.MkdirAll(o.Home, 0o700); err != nil {
		return perigee.E("localnet.Start", perigee.Internal, err, "cannot make a home")
	}
	args := []string{"init", "--home", o.Home}
	if o.Region != "" {
		args = append(args, "--region", o.Region)
	}
	if o.Provide != "" {
		args = append(args, "--provide", o.Provide)
	}
	cmd := exec.CommandContext(ctx, o.Binary, args...)
	cmd.Env = environment(o.Home)
	if out, err := cmd.CombinedOutput(); err != nil {
		return perigee.E("localnet.Start", perigee.Internal, err, "perigee init failed\n%s", out)
	}
	return nil
}

// await waits until the node answers.
func (n *Node) await(ctx context.Context) error {
	const op = "localnet.Start"
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if c, err := client.FromHome(n.Home); err == nil {
			if s, err := c.Status(ctx); err == nil {
				n.Client, n.Status = c, s
				return nil
			}
		}
		select {
		case <-n.done:
			return perigee.E(op, perigee.Unavailable, "the node ended at once (%s)%s", n.cmd.ProcessState, n.tail())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return perigee.E(op, perigee.Timeout, "the node does not answer after %s%s", startTime, n.tail())
			}
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Failure returns err with the last lines of the node's log, for an error that
// the node answered or that came of its end; nil for nil.
func (n *Node) Failure(err error) error {
	if err == nil {
		return nil
	}
	var pe *perigee.Error
	if errors.As(err, &pe) && pe.Kind != perigee.Internal && pe.Kind != perigee.Unavailable {
		return err // the node lives and its message says all
	}
	return fmt.Errorf("%w%s", err, n.tail())
}

// PID is the process's number.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Done is closed when the process has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// tail is the end of the node's log, introduced by its path.
func (n *Node) tail() string {
	path := filepath.Join(n.Home, "serve.log")
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		_, _ = f.Seek(-tailBytes, io.SeekEnd) // else the tail is the whole
	}
	b, err := io.ReadAll(f)
	if err != nil || len(b) == 0 {
		return ""
	}
	return fmt.Sprintf("\nthe end of %s:\n%s", path, strings.TrimRight(string(b), "\n"))
}

// Stop asks the node to end, kills it if it does not within ten seconds, and
// returns when the process is gone. Further calls do nothing.
func (n *Node) Stop() {
	n.once.Do(func() {
		interrupt(n.cmd.Process)
		select {
		case <-n.done:
		case <-time.After(stopTime):
			_ = n.cmd.Process.Kill() // fails only when it is gone
			<-n.done
		}
	})
}

// StopAll stops nodes at the same time.
func StopAll(nodes []*Node) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(n.Stop)
	}
	wg.Wait()
}
