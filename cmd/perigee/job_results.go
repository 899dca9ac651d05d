package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
)

func newJobResultsCmd(a *app) *cobra.Command {
	var dest string
	c := &cobra.Command{
		Use:   "results ID",
		Short: "Tell or fetch what a finished job left behind",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runJobResults(cmd, a, args[0], dest) },
	}
	c.Flags().StringVarP(&dest, "output", "o", "", "directory to write the results to")
	return c
}

func runJobResults(cmd *cobra.Command, a *app, id, dest string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	r, err := c.Results(cmd.Context(), id)
	if err != nil {
		return err
	}
	if dest != "" {
		m := a.newMeter("getting results")
		err := c.Get(cmd.Context(), r.Output.String(), dest, m.bytes)
		m.end()
		if err != nil {
			return err
		}
	}
	return a.show(r, func(w io.Writer) {
		fmt.Fprintln(w, "output", r.Output)
		if dest != "" {
			fmt.Fprintln(w, "written to", dest)
		}
		t := newTable(">PART", ">EXIT", "PROVIDER", "OUTPUT", "RECEIPT")
		for _, p := range r.Parts {
			part := strconv.Itoa(p.Part)
			if p.Merge {
				part = "merge"
			}
			t.row(part, strconv.Itoa(p.ExitCode), p.Provider.Short(), p.Output.String(), p.Receipt.String())
		}
		t.print(w)
	})
}
