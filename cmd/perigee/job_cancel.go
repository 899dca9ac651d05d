package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newJobCancelCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Stop a job",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runJobCancel(cmd, a, args[0]) },
	}
}

func runJobCancel(cmd *cobra.Command, a *app, id string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	if err := c.Cancel(cmd.Context(), id); err != nil {
		return err
	}
	st, err := c.Job(cmd.Context(), id)
	if err != nil {
		return err
	}
	return a.show(st, func(w io.Writer) { fmt.Fprintf(w, "job %s is %s\n", id, st.State) })
}
