package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee/client"
)

func newJobSubmitCmd(a *app) *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:   "submit FILE|-",
		Short: "Submit a job file and print the job's ID",
		Long: `Submit a job file, YAML or JSON, and print the job's ID. Paths in it are relative
to the file; - reads standard input, whose paths are relative to here. Without a
running node, one is started and stays until the job is finished.`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runJobSubmit(cmd, a, args[0], key) },
	}
	c.Flags().StringVar(&key, "idempotency-key", "", "the same key always gives the same job")
	return c
}

func runJobSubmit(cmd *cobra.Command, a *app, file, key string) error {
	job, err := readJob(a, file)
	if err != nil {
		return err
	}
	dir := ""
	if file != "-" {
		dir = filepath.Dir(file)
	}
	ctx := cmd.Context()
	s, err := a.session(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	if err := a.localize(ctx, s.Client, job, dir); err != nil {
		return err
	}
	id, err := s.Submit(ctx, *job, key)
	if err != nil {
		return err
	}
	if err := a.show(client.Submitted{ID: id}, func(w io.Writer) { fmt.Fprintln(w, id) }); err != nil {
		return err
	}
	if !s.embedded {
		return nil
	}
	a.note("no node is running at %s, so this command runs one until the job is finished", a.home)
	st, err := s.Wait(ctx, id)
	if err != nil {
		return err
	}
	return endOf(&st)
}
