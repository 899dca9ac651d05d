package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newJobWaitCmd(a *app) *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a job is finished",
		Long: `Wait until a job is finished and show it. Fails when the job did; its program's
exit code is in what is printed. Ctrl-C stops the waiting, not the job.`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runJobWait(cmd, a, args[0], limit) },
	}
	c.Flags().DurationVar(&limit, "timeout", 0, "wait no longer than this")
	return c
}

func runJobWait(cmd *cobra.Command, a *app, id string, limit time.Duration) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit)
		defer stop()
	}
	m := a.newMeter("waiting")
	m.unit = countText
	var last perigee.JobStatus
	err = c.Watch(ctx, id, func(st perigee.JobStatus) error {
		last = st
		m.set(int64(st.Done), int64(st.Parts), st.Note)
		return nil
	})
	m.end()
	switch {
	case errors.Is(err, perigee.Cancelled):
		return perigee.E("job wait", perigee.Cancelled, "stopped waiting; job %s goes on", id)
	case errors.Is(err, perigee.Timeout):
		return perigee.E("job wait", perigee.Timeout, "job %s is still %s after %s", id, last.State, limit)
	case err != nil:
		return err
	}
	if err := a.show(last, func(w io.Writer) { printJob(w, &last) }); err != nil {
		return err
	}
	return endOf(&last)
}

// endOf is nil for a job that completed, else why it did not.
func endOf(st *perigee.JobStatus) error {
	if st.State == perigee.JobCompleted {
		return nil
	}
	return jobError(st)
}
