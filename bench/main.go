// Command bench measures Perigee on this machine, in one run of less than three
// minutes: the latency of jobs through the API and the command line, jobs per
// second, and the speed of adding, indexing and fetching data, each beside what
// the machine itself can do. It starts real nodes over loopback.
//
//	go run ./bench [-o bench/results.json]
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/demo/localnet"
)

func main() {
	out := flag.String("o", "bench/results.json", "file for the results; none when empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := measure(ctx)
	if err == nil {
		r.print(os.Stdout)
		if *out != "" {
			err = r.write(*out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure runs everything in a directory of its own.
func measure(ctx context.Context) (*report, error) {
	dir, err := os.MkdirTemp("", "perigee-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	say("building")
	binary, hello, err := build(ctx, dir)
	if err != nil {
		return nil, err
	}
	r := &report{Started: time.Now().UTC().Truncate(time.Second), Machine: thisMachine()}
	say("measuring the machine")
	if err := measureLimits(r, dir); err != nil {
		return nil, err
	}
	if err := measureJobs(ctx, r, dir, binary, hello); err != nil {
		return nil, err
	}
	// Once more: a machine that also does other things is not always as fast,
	// and a limit is the most it could do.
	if err := measureLimits(r, dir); err != nil {
		return nil, err
	}
	return r, measureData(ctx, r, dir, binary)
}

func say(what string) { fmt.Fprintln(os.Stderr, what+" …") }

// measureLimits measures what the machine can do and keeps the best so far.
func measureLimits(r *report, dir string) error {
	l := &r.Limits
	l.SHA256One, l.SHA256All = max(l.SHA256One, sha256Speed(1)/1e6), max(l.SHA256All, sha256Speed(cores())/1e6)
	speed, err := loopbackSpeed()
	if err != nil {
		return err
	}
	trip, err := roundTrip()
	if err != nil {
		return err
	}
	disk, err := diskSpeed(dir)
	if err != nil {
		return err
	}
	l.Loopback, l.DiskWrites = max(l.Loopback, speed/1e6), max(l.DiskWrites, disk/1e6)
	if p50 := trip.percentile(50); l.RoundTrip == 0 || p50 < l.RoundTrip {
		l.RoundTrip = p50
	}
	return nil
}

// measureJobs measures on one node alone.
func measureJobs(ctx context.Context, r *report, dir, binary, hello string) error {
	node, err := localnet.Start(ctx, localnet.Options{Binary: binary, Home: filepath.Join(dir, "alone")})
	if err != nil {
		return err
	}
	defer node.Stop()
	j := &jobs{binary: binary, node: node}
	start, err := j.version(ctx)
	if err != nil {
		return err
	}
	r.Limits.StartP50 = start.percentile(50)
	trip := fmt.Sprintf("loopback round trip %.3f ms", r.Limits.RoundTrip)
	begin := fmt.Sprintf("process start %.1f ms", r.Limits.StartP50)

	tinyPath, err := writeTiny(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(hello)
	if err != nil {
		return err
	}
	for _, m := range []struct{ name, path string }{
		{fmt.Sprintf("tiny module (%d bytes)", len(tiny)), tinyPath},
		{fmt.Sprintf("Go module (%.1f MB)", float64(info.Size())/1e6), hello},
	} {
		job, err := j.module(ctx, m.path)
		if err != nil {
			return err
		}
		say("running jobs: " + m.name)
		t, err := j.latency(ctx, job)
		if err != nil {
			return err
		}
		r.latency(m.name+", through the API", t, trip)
		if t, err = j.command(ctx, m.path); err != nil {
			return err
		}
		r.latency(m.name+", through the CLI", t, begin)
		if err := measureMany(ctx, r, j, m.name, job, trip); err != nil {
			return err
		}
	}
	return nil
}

// measureMany measures many clients at once, and reuse.
func measureMany(ctx context.Context, r *report, j *jobs, name string, job perigee.Job, trip string) error {
	rate, err := j.rate(ctx, job)
	if err != nil {
		return err
	}
	r.Results = append(r.Results, result{Name: fmt.Sprintf("%s, %d clients", name, clients), Unit: "jobs/s", Value: rate, Limit: fmt.Sprintf("%d cores", cores())})
	job.Reuse = "own"
	t, err := j.latency(ctx, job)
	if err != nil {
		return err
	}
	r.latency(name+", repeated (reuse)", t, trip)
	return nil
}

// measureData measures between two nodes.
func measureData(ctx context.Context, r *report, dir, binary string) error {
	nodes, err := network(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer localnet.StopAll(nodes)
	s := &store{dir: dir, random: rand.NewChaCha8([32]byte{})}
	say("writing test data")
	file, err := s.file("file", fileSize)
	if err != nil {
		return err
	}
	other, err := s.file("other", fileSize)
	if err != nil {
		return err
	}
	tree, err := s.tree("tree")
	if err != nil {
		return err
	}
	hash := fmt.Sprintf("SHA-256 on %d cores %.0f MB/s", cores(), r.Limits.SHA256All)
	disk := fmt.Sprintf("%s, synced file %.0f MB/s", hash, r.Limits.DiskWrites)
	wire := fmt.Sprintf("loopback TCP %.0f MB/s, SHA-256 on one core %.0f MB/s", r.Limits.Loopback, r.Limits.SHA256One)
	small := int64(smallFiles * smallSize)

	say("adding and fetching data")
	indexed, seconds, err := s.add(ctx, nodes[0], file, client.AddOptions{InPlace: true})
	if err != nil {
		return err
	}
	r.speed(fmt.Sprintf("index %d MiB in place", fileSize>>20), fileSize, seconds, hash)
	if _, seconds, err = s.add(ctx, nodes[0], other, client.AddOptions{}); err != nil {
		return err
	}
	r.speed(fmt.Sprintf("add %d MiB (copy)", fileSize>>20), fileSize, seconds, disk)
	added, seconds, err := s.add(ctx, nodes[0], tree, client.AddOptions{})
	if err != nil {
		return err
	}
	r.speed(fmt.Sprintf("add %d files of %d KiB (copy)", smallFiles, smallSize>>10), small, seconds, disk)
	if seconds, err = s.fetch(ctx, nodes[1], indexed); err != nil {
		return err
	}
	r.speed(fmt.Sprintf("fetch %d MiB from another node", fileSize>>20), fileSize, seconds, wire)
	if seconds, err = s.fetch(ctx, nodes[1], added); err != nil {
		return err
	}
	r.speed(fmt.Sprintf("fetch %d files of %d KiB", smallFiles, smallSize>>10), small, seconds, wire)
	return nil
}
