package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// runFlags are the flags of `perigee run`, as they were written.
type runFlags struct {
	inputs, env, outputs, regions, exclude []string
	name, split, merge, workdir            string
	memory, disk, maxTransfer, fuel        string
	timeout, retention                     time.Duration
	cpu                                    int
	maxPrice                               float64
	verify, reuse                          string
	mergeArgs                              []string
	dest, key                              string
	detach                                 bool
}

func newRunCmd(a *app) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] MODULE.wasm|CID [-- ARGS…]",
		Short: "Run a WebAssembly program over data",
		Long: `Run a WebAssembly program (WASI preview 1 command) over data, where the data is.
Its standard output and standard error come out here, of several parts prefixed
with the part on a terminal; with --merge only the merge's output does. Progress
goes to standard error. Ctrl-C cancels the job.

Without a running node, one is started for the duration of the command.

If the program ends with exit code n, this command ends with 10+n.`,
		Example: `  perigee run hello.wasm
  perigee run --input ./logs --split file --merge sum.wasm count.wasm -- -level ERROR /in
  perigee run --input bafy…:/data -o results stats.wasm -- /data`,
		Args: takes(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error { return runRun(cmd, a, &f, args[0], args[1:]) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.inputs, "input", "i", nil, "data to read: PATH, CID or OWNER/NAME, with :MOUNT if not at /in; may be repeated")
	fl.StringVar(&f.split, "split", "", "divide the first input: file, bytes=64MiB, part or count=N")
	fl.StringVar(&f.merge, "merge", "", "a second program over the parts' outputs, which it finds at /parts/<index>/")
	fl.StringArrayVar(&f.mergeArgs, "merge-arg", nil, "argument of the merge program; may be repeated; default /parts")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "environment variable K=V; may be repeated")
	fl.StringVar(&f.workdir, "workdir", "", "directory the program starts in; default /")
	fl.StringArrayVar(&f.outputs, "keep", []string{"/out"}, "directory of the program to keep as output; may be repeated")
	fl.StringVar(&f.name, "name", "", "a name for people")
	fl.IntVar(&f.cpu, "cpu", 0, "cores; default 1")
	fl.StringVar(&f.memory, "memory", "", "memory; default 512MiB")
	fl.StringVar(&f.disk, "disk", "", "bytes the program may write; default 1GiB")
	fl.DurationVar(&f.timeout, "timeout", 0, "time one part may take; default 10m")
	fl.StringVar(&f.fuel, "fuel", "", "operations one part may execute, such as 50e9; default 1e12")
	fl.StringSliceVar(&f.regions, "region", nil, "run only here or below, such as EU; may be repeated")
	fl.StringSliceVar(&f.exclude, "exclude", nil, "region or peer never to use; may be repeated")
	fl.StringVar(&f.maxTransfer, "max-transfer", "", "most input bytes to move between nodes")
	fl.Float64Var(&f.maxPrice, "max-price", 0, "most credits the whole job may cost")
	fl.StringVar(&f.verify, "verify", "", "none, audit or replicate=3/2")
	fl.StringVar(&f.reuse, "reuse", "", "whose earlier results may answer: off, own (default) or audited")
	fl.DurationVar(&f.retention, "retention", 0, "how long results are kept; default 24h")
	fl.StringVarP(&f.dest, "output", "o", "", "directory to write the results to")
	fl.StringVar(&f.key, "idempotency-key", "", "the same key always gives the same job")
	fl.BoolVar(&f.detach, "detach", false, "print the job's ID and leave it running; needs a running node")
	return c
}

// job makes the job that the flags describe, with sources as they were named.
func (f *runFlags) job(cmd *cobra.Command, module string, args []string) (*perigee.Job, error) {
	job := &perigee.Job{
		Name:      f.name,
		Wasm:      &perigee.Wasm{Module: module, Args: args, Workdir: f.workdir},
		Outputs:   f.outputs,
		Placement: perigee.Placement{Regions: f.regions, Exclude: f.exclude},
		Resources: perigee.Resources{CPU: f.cpu, Timeout: perigee.Duration(f.timeout)},
		Reuse:     f.reuse,
		Retention: perigee.Duration(f.retention),
	}
	for _, kv := range f.env {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef("--env %q is not of the form K=V", kv)
		}
		if job.Wasm.Env == nil {
			job.Wasm.Env = map[string]string{}
		}
		job.Wasm.Env[k] = v
	}
	for _, in := range f.inputs {
		src, mount := splitMount(in)
		job.Inputs = append(job.Inputs, perigee.Input{Source: src, Mount: mount})
	}
	if f.split != "" {
		switch {
		case len(job.Inputs) > 0:
		case strings.HasPrefix(f.split, "count="): // copies need no data
			job.Inputs = []perigee.Input{{}}
		default:
			return nil, usagef("--split %s divides an input; name one with --input", f.split)
		}
		job.Inputs[0].Split = f.split
	}
	if f.merge != "" {
		job.Merge = &perigee.Wasm{Module: f.merge, Args: f.mergeArgs}
		if f.mergeArgs == nil {
			job.Merge.Args = []string{"/parts"}
		}
	}
	if cmd.Flags().Changed("max-price") {
		job.Price.MaxTotal = &f.maxPrice
	}
	if !cmd.Flags().Changed("keep") && slices.ContainsFunc(job.Inputs, func(in perigee.Input) bool { return in.Mount == "/out" }) {
		job.Outputs = nil // the default gives way to what is mounted there
	}
	return job, f.sizes(job)
}

// sizes fills in the flags that are written with units.
func (f *runFlags) sizes(job *perigee.Job) (err error) {
	for _, s := range []struct {
		flag, text string
		into       *perigee.Size
	}{
		{"memory", f.memory, &job.Resources.Memory},
		{"disk", f.disk, &job.Resources.Disk},
		{"max-transfer", f.maxTransfer, &job.Placement.MaxTransfer},
	} {
		if s.text != "" {
			if *s.into, err = perigee.ParseSize(s.text); err != nil {
				return usagef("--%s: %s", s.flag, err)
			}
		}
	}
	if f.fuel != "" {
		if job.Resources.Fuel, err = perigee.ParseFuel(f.fuel); err != nil {
			return usagef("--fuel: %s", err)
		}
	}
	if f.verify != "" {
		if job.Verify, err = perigee.ParseVerify(f.verify); err != nil {
			return usagef("--verify: %s", err)
		}
	}
	return nil
}

func runRun(cmd *cobra.Command, a *app, f *runFlags, module string, args []string) error {
	job, err := f.job(cmd, module, args)
	if err != nil {
		return err
	}
	// What can be refused without a node is refused before one is started.
	if err := checkSources(job); err != nil {
		return err
	}
	check := *job
	if err := check.Normalize(); err != nil {
		return err
	}
	ctx := cmd.Context()
	if f.detach {
		return runDetached(ctx, a, job, f.key)
	}
	job.StreamLogs = true
	r := &attachedRun{a: a, job: job, key: cmp.Or(f.key, rand.Text()), dest: f.dest}
	return r.run(ctx)
}

// attachedRun is a job whose end a command waits for. The node that has the job
// may be another command's and end with it, or be started again: the job is
// durable, so the run goes on with whatever node the home has next.
type attachedRun struct {
	a      *app
	job    *perigee.Job
	key    string // makes submitting again safe
	dest   string
	cursor client.LogCursor
	out    *guestOutput
}

// maxNodesLost bounds how often a run goes on with another node.
const maxNodesLost = 10

func (r *attachedRun) run(ctx context.Context) error {
	for lost := 0; ; lost++ {
		s, err := r.a.session(ctx)
		if err != nil {
			return err
		}
		err = r.with(ctx, s)
		gone := errors.Is(err, perigee.Unavailable) && r.a.api == "" && !s.embedded && ctx.Err() == nil && lost < maxNodesLost
		if gone {
			_, serr := s.Status(ctx) // or the node is there, and it was the job
			gone = errors.Is(serr, perigee.Unavailable)
		}
		s.close()
		if !gone {
			return err
		}
	}
}

// with runs the job through one node.
func (r *attachedRun) with(ctx context.Context, s *session) error {
	if err := r.a.localize(ctx, s.Client, r.job, ""); err != nil {
		return err
	}
	id, err := s.Submit(ctx, *r.job, r.key)
	if err != nil {
		return err
	}
	if r.out == nil {
		r.out = newGuestOutput(r.a, id, r.job.Merge != nil)
	}
	st, err := r.attach(ctx, s.Client, id)
	if err != nil {
		return err
	}
	r.out.flush()
	return r.a.finish(ctx, s.Client, st, r.dest)
}

// checkSources refuses sources and modules that are nothing at all.
func checkSources(job *perigee.Job) error {
	for _, w := range []*perigee.Wasm{job.Wasm, job.Merge} {
		if w == nil {
			continue
		}
		src, err := findSource(w.Module)
		if err != nil {
			return err
		}
		if src.kind == sourcePath && !src.isDir {
			if err := checkModule(w.Module); err != nil {
				return err
			}
		}
	}
	for _, in := range job.Inputs {
		if in.Source == "" {
			continue
		}
		if _, err := findSource(in.Source); err != nil {
			return err
		}
	}
	return nil
}

// runDetached leaves a job to a node that goes on running.
func runDetached(ctx context.Context, a *app, job *perigee.Job, key string) error {
	c, err := a.connect()
	if err != nil {
		if errors.Is(err, perigee.Unavailable) {
			return perigee.E("run", perigee.Unavailable, "--detach leaves the job to a running node, and none is running at %s: start one with: perigee serve", a.home)
		}
		return err
	}
	if err := a.localize(ctx, c, job, ""); err != nil {
		return err
	}
	id, err := c.Submit(ctx, *job, key)
	if err != nil {
		return err
	}
	return a.show(client.Submitted{ID: id}, func(w io.Writer) { fmt.Fprintln(w, id) })
}

// attach follows a job to its end, with its output on this command's. When the
// command is interrupted, the job is cancelled.
func (r *attachedRun) attach(ctx context.Context, c *client.Client, id string) (perigee.JobStatus, error) {
	m := r.a.newMeter("running")
	m.unit = countText
	r.out.attach(c, m)
	var last perigee.JobStatus
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return c.Watch(gctx, id, func(st perigee.JobStatus) error {
			last = st
			r.out.setParts(st.Parts)
			if st.Parts > 0 {
				m.set(int64(st.Done), int64(st.Parts), st.Note)
			} else if st.Note != "" {
				m.set(0, 0, st.Note)
			}
			return nil
		})
	})
	group.Go(func() error {
		return c.LogsFrom(gctx, id, true, &r.cursor, func(chunk client.LogChunk) error { return r.out.write(gctx, chunk) })
	})
	err := group.Wait()
	m.end()
	if ctx.Err() != nil {
		return last, r.a.cancelJob(ctx, c, id)
	}
	return last, err
}

// cancelJob cancels the job of an interrupted command.
func (a *app) cancelJob(ctx context.Context, c *client.Client, id string) error {
	a.note("interrupted: cancelling job %s (Ctrl-C again leaves it to the node)", id)
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	if err := c.Cancel(ctx, id); err != nil {
		return perigee.E("run", perigee.Cancelled, err, "interrupted, and the job could not be cancelled; it goes on as %s", id)
	}
	return perigee.E("run", perigee.Cancelled, "job %s was cancelled", id)
}

// finish tells how a job ended, writes its results if asked, and turns its end
// into this command's.
func (a *app) finish(ctx context.Context, c *client.Client, st perigee.JobStatus, dest string) error {
	if a.json {
		if err := a.printJSON(st); err != nil {
			return err
		}
	}
	if st.State != perigee.JobCompleted && st.ExitCode == 0 {
		return jobError(&st)
	}
	if dest != "" {
		m := a.newMeter("getting results")
		err := c.Get(ctx, st.Output.String(), dest, m.bytes)
		m.end()
		if err != nil {
			return err
		}
	}
	if !a.json && (a.errTTY || st.Parts > 1 || dest != "") {
		a.note("%s", summary(&st, dest))
	}
	if st.ExitCode != 0 {
		return &guestError{st.ExitCode}
	}
	return nil
}

// jobError is how a job ended that did not complete.
func jobError(st *perigee.JobStatus) error {
	if st.Error != nil {
		return perigee.E("job", perigee.KindOf(st.Error.Err("job")), "job %s %s: %s", st.ID, st.State, st.Error.Message)
	}
	if st.State == perigee.JobCancelled {
		return perigee.E("job", perigee.Cancelled, "job %s was cancelled", st.ID)
	}
	return perigee.E("job", perigee.Internal, "job %s %s", st.ID, st.State)
}

// summary tells in one line what a job took.
func summary(st *perigee.JobStatus, dest string) string {
	var fuel, read, fetched int64
	for _, e := range st.Executions {
		if e.Accepted {
			fuel, read, fetched = fuel+e.Fuel, read+e.BytesRead, fetched+e.BytesFetched
		}
	}
	s := fmt.Sprintf("job %s: %s in %s, %s read in place, %s moved, %s fuel",
		st.ID, plural(int64(st.Parts), "part", "parts"), took(&st.Created, st.Finished), bytesText(read), bytesText(fetched), countText(fuel))
	if st.Reused > 0 {
		s += fmt.Sprintf(", %d reused", st.Reused)
	}
	if dest != "" {
		s += ", results in " + dest
	}
	return s
}
