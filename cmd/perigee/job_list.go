package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newJobListCmd(a *app) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List this node's jobs, newest first",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runJobList(cmd, a, limit) },
	}
	c.Flags().IntVar(&limit, "limit", 100, "most jobs to list, up to 1000")
	return c
}

func runJobList(cmd *cobra.Command, a *app, limit int) error {
	if limit < 1 || limit > 1000 {
		return usagef("--limit is between 1 and 1000, not %d", limit)
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	jobs, err := c.Jobs(cmd.Context(), limit)
	if err != nil {
		return err
	}
	return a.show(jobs, func(w io.Writer) {
		if len(jobs) == 0 {
			fmt.Fprintln(w, "no jobs yet")
			return
		}
		t := newTable("ID", "NAME", "STATE", ">PARTS", "CREATED", ">TOOK", "OUTPUT")
		for i := range jobs {
			j := &jobs[i]
			t.row(j.ID, orDash(j.Name), string(j.State), fmt.Sprintf("%d/%d", j.Done, j.Parts), ago(j.Created), took(&j.Created, j.Finished), orDash(j.Output.String()))
		}
		t.print(w)
	})
}
