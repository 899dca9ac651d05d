package demo

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// jobTime bounds a run of the job.
const jobTime = 5 * time.Minute

// pollInterval is how often the job's state is asked for while it runs.
const pollInterval = 40 * time.Millisecond

// compute runs the job and keeps what it did and found.
func (d *run) compute(ctx context.Context) error {
	job, err := d.job(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	status, err := d.submit(ctx, job, newBoard(d.Progress, d.Terminal, d.report.Nodes))
	if err != nil {
		return err
	}
	d.report.Seconds = time.Since(began).Seconds()
	d.report.Job = status.ID
	d.report.Output = status.Output
	d.report.account(status)
	text, err := d.result(ctx, status)
	if err != nil {
		return err
	}
	d.report.Table, err = parseTable(text)
	return err
}

// job describes the work: the map program on each part of the dataset, the
// merge program over what they leave.
func (d *run) job(ctx context.Context) (perigee.Job, error) {
	cids := map[string]string{}
	for _, name := range []string{"flights", "flightsmerge"} {
		path := filepath.Join(d.dir, "programs", name+".wasm")
		added, err := d.nodes[0].Client.AddPath(ctx, path, client.AddOptions{Name: name}, nil)
		if err != nil {
			return perigee.Job{}, fmt.Errorf("cannot add the program %s: %w", name, err)
		}
		cids[name] = added.CID.String()
	}
	return perigee.Job{
		Name:      "flights",
		Wasm:      &perigee.Wasm{Module: cids["flights"], Args: []string{"/in", "/out"}},
		Inputs:    []perigee.Input{{Source: d.report.Dataset, Mount: "/in", Split: perigee.SplitPart}},
		Outputs:   []string{"/out"},
		Merge:     &perigee.Wasm{Module: cids["flightsmerge"], Args: []string{"/parts", "/out"}},
		Resources: perigee.Resources{Memory: 256 << 20, Timeout: perigee.Duration(2 * time.Minute)},
		// What the demo promises is also a rule of the job: a part that would
		// have to move waits for the node that holds it.
		Placement: perigee.Placement{MaxTransfer: perigee.Size(maxMoved * float64(d.input))},
		Retention: perigee.Duration(time.Hour),
	}, nil
}

// submit runs job to its end; show, when not nil, is told of its progress.
func (d *run) submit(ctx context.Context, job perigee.Job, show *board) (perigee.JobStatus, error) {
	const op = "demo.Run"
	ctx, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	c := d.nodes[0].Client
	sub, err := c.SubmitAndWait(ctx, job, "", pollInterval)
	if err != nil {
		return perigee.JobStatus{}, fmt.Errorf("cannot submit the job: %w", err)
	}
	status := sub.Status
	for status == nil || !status.State.Final() {
		if show != nil && status != nil {
			show.update(*status)
		}
		select {
		case <-ctx.Done():
			return perigee.JobStatus{}, perigee.E(op, perigee.Timeout, "job %s is not done after %s: %s", sub.ID, jobTime, waitsFor(status))
		case <-time.After(pollInterval):
		}
		now, err := c.Job(ctx, sub.ID)
		if err != nil {
			return perigee.JobStatus{}, fmt.Errorf("lost the job: %w", err)
		}
		status = &now
	}
	if show != nil {
		show.finish(*status)
	}
	if status.State != perigee.JobCompleted {
		return *status, perigee.E(op, perigee.Internal, status.Error.Err(op), "job %s %s", status.ID, status.State)
	}
	if status.ExitCode != 0 {
		return *status, perigee.E(op, perigee.Internal, "a program of job %s ended with exit code %d", status.ID, status.ExitCode)
	}
	return *status, nil
}

func waitsFor(s *perigee.JobStatus) string {
	if s == nil {
		return "it did not begin"
	}
	if s.Note != "" {
		return s.Note
	}
	return fmt.Sprintf("%d of %d parts are done", s.Done, s.Parts)
}

// result fetches the merge's table, as CSV.
func (d *run) result(ctx context.Context, status perigee.JobStatus) ([]byte, error) {
	for _, e := range status.Executions {
		if e.Merge && e.Accepted {
			r, err := d.nodes[0].Client.Open(ctx, e.Output.String()+"/out/airports.csv")
			if err != nil {
				return nil, fmt.Errorf("cannot fetch the result: %w", err)
			}
			defer r.Close()
			return io.ReadAll(r)
		}
	}
	return nil, perigee.E("demo.Run", perigee.Internal, "job %s has no merged result", status.ID)
}

// parseTable reads the CSV that the merge program wrote.
func parseTable(text []byte) ([]Row, error) {
	records, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(records) < 2 {
		return nil, perigee.E("demo.Run", perigee.Corrupt, err, "the result is not the expected table")
	}
	rows := make([]Row, 0, len(records)-1)
	for _, r := range records[1:] {
		row := Row{Airport: r[0], MeanDelay: r[2], WorstDecile: r[3]}
		if _, err := fmt.Sscan(r[1], &row.Departures); err != nil {
			return nil, perigee.E("demo.Run", perigee.Corrupt, err, "the result counts %q departures", r[1])
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// check verifies the receipt of every accepted execution, in this process and
// from nothing but the receipt itself.
func (d *run) check(ctx context.Context) error {
	c := d.nodes[0].Client
	status, err := c.Job(ctx, d.report.Job)
	if err != nil {
		return err
	}
	for _, e := range status.Executions {
		if !e.Accepted {
			continue
		}
		d.report.Receipts++
		if err := checkReceipt(ctx, c, e); err != nil {
			d.report.BadReceipts = append(d.report.BadReceipts, fmt.Sprintf("%s: %s", e.Receipt, err))
			continue
		}
		d.report.ReceiptsValid++
		d.report.anyReceipt = e.Receipt
	}
	return nil
}

func checkReceipt(ctx context.Context, c *client.Client, e perigee.ExecutionStatus) error {
	told, err := c.Receipt(ctx, e.Receipt)
	if err != nil {
		return err
	}
	if told.Receipt == nil {
		return perigee.E("demo.Run", perigee.Corrupt, "the node told no receipt")
	}
	r := told.Receipt
	if cid, _, err := perigee.LinkTo(r); err != nil || cid != e.Receipt {
		return perigee.E("demo.Run", perigee.Corrupt, err, "its content is that of %s", cid)
	}
	if err := r.Check(); err != nil {
		return err
	}
	if r.Provider != e.Provider || r.Result.Output != e.Output || r.JobKey != e.JobKey || r.Result.Fuel != e.Fuel {
		return perigee.E("demo.Run", perigee.Corrupt, "it is not about this execution")
	}
	return nil
}

// again runs the same job a second time.
func (d *run) again(ctx context.Context) error {
	job, err := d.job(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	status, err := d.submit(ctx, job, nil)
	if err != nil {
		return fmt.Errorf("the second run: %w", err)
	}
	a := &d.report.Again
	a.Job = status.ID
	a.Seconds = time.Since(began).Seconds()
	a.Parts = status.Parts
	a.Reused = status.Reused
	a.Same = status.Output == d.report.Output
	for _, e := range status.Executions {
		if e.Accepted && !e.Reused {
			a.Fuel += e.Fuel
		}
	}
	return nil
}

// next are commands to try after the demo.
func (d *run) next(programs string) []string {
	if d.Keep == nil {
		return []string{
			d.Binary + " demo --keep",
			d.Binary + " serve",
			d.Binary + " run --help",
		}
	}
	home := filepath.Join(d.dir, nodeName(min(1, d.Nodes-1)))
	return []string{
		fmt.Sprintf("%s job explain %s --home %s", d.Binary, d.report.Job, filepath.Join(d.dir, nodeName(0))),
		fmt.Sprintf("%s receipt verify %s --home %s", d.Binary, d.report.anyReceipt, filepath.Join(d.dir, nodeName(0))),
		fmt.Sprintf("%s run --home %s --input %s --split part --merge %s %s -- /in /out", d.Binary, home, d.report.Dataset,
			filepath.Join(programs, "flightsmerge.wasm"), filepath.Join(programs, "flights.wasm")),
	}
}
