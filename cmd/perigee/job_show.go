package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newJobShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show where a job stands, with its executions",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runJobShow(cmd, a, args[0]) },
	}
}

func runJobShow(cmd *cobra.Command, a *app, id string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	st, err := c.Job(cmd.Context(), id)
	if err != nil {
		return err
	}
	return a.show(st, func(w io.Writer) { printJob(w, &st) })
}
