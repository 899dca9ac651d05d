package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/demo/localnet"
)

const (
	budget   = 8 * time.Second // for one measurement
	warmRuns = 5               // before one
	maxRuns  = 500             // in one
	clients  = 16
	printed  = "hello\n" // by both programs
)

// jobs measures jobs on one node alone: its requester, its provider and its
// engine, without a network between them.
type jobs struct {
	binary string
	node   *localnet.Node
}

// module adds a program to the node and returns a job that runs it, computed
// anew each time.
func (j *jobs) module(ctx context.Context, path string) (perigee.Job, error) {
	added, err := j.node.Client.AddPath(ctx, path, client.AddOptions{}, nil)
	if err != nil {
		return perigee.Job{}, err
	}
	return perigee.Job{Name: filepath.Base(path), Wasm: &perigee.Wasm{Module: added.CID.String()}, Reuse: "off"}, nil
}

// run submits a job, waits for it and reads what it printed.
func (j *jobs) run(ctx context.Context, job perigee.Job) error {
	c := j.node.Client
	sub, err := c.SubmitAndWait(ctx, job, "", time.Minute)
	if err != nil {
		return err
	}
	st := sub.Status
	if st == nil || st.State != perigee.JobCompleted {
		return fmt.Errorf("job %s did not complete: %+v", sub.ID, st)
	}
	f, err := c.Open(ctx, st.Output.String()+"/stdout")
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err == nil && string(text) != printed {
		err = fmt.Errorf("job %s printed %q", sub.ID, text)
	}
	return err
}

// latency measures the time from submission to output through the API.
func (j *jobs) latency(ctx context.Context, job perigee.Job) (times, error) {
	return repeat(ctx, func() error { return j.run(ctx, job) })
}

// command measures `perigee run` from its start to its end.
func (j *jobs) command(ctx context.Context, path string) (times, error) {
	return repeat(ctx, func() error {
		return j.perigee(ctx, "run", "--home", j.node.Home, "--reuse", "off", path)
	})
}

// version measures the start of the command by itself.
func (j *jobs) version(ctx context.Context) (times, error) {
	return repeat(ctx, func() error { return j.perigee(ctx, "version") })
}

func (j *jobs) perigee(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, j.binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("perigee %s: %w\n%s", args[0], err, &stderr)
	}
	if args[0] == "run" && stdout.String() != printed {
		return fmt.Errorf("perigee run printed %q", &stdout)
	}
	return nil
}

// rate measures how many jobs a second many clients get done together.
func (j *jobs) rate(ctx context.Context, job perigee.Job) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var done atomic.Int64
	var failed error
	var once sync.Once
	var wg sync.WaitGroup
	start := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(start) < budget {
				if err := j.run(ctx, job); err != nil {
					once.Do(func() { failed = err; cancel() })
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), failed
}

// repeat times fn until the budget or the number of runs is used up.
func repeat(ctx context.Context, fn func() error) (times, error) {
	for range warmRuns {
		if err := fn(); err != nil {
			return nil, err
		}
	}
	var t times
	for start := time.Now(); time.Since(start) < budget && len(t) < maxRuns; {
		began := time.Now()
		if err := fn(); err != nil {
			return nil, err
		}
		t = append(t, time.Since(began))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return t, nil
}

// writeTiny writes the tiny program below dir.
func writeTiny(dir string) (string, error) {
	path := filepath.Join(dir, "tiny.wasm")
	return path, os.WriteFile(path, tiny, 0o644)
}
