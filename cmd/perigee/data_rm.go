package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDataRmCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rm CID",
		Short: "Drop a root and what only it kept; files indexed in place stay",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataRm(cmd, a, args[0]) },
	}
}

func runDataRm(cmd *cobra.Command, a *app, root string) error {
	c, id, err := a.connectFor(root)
	if err != nil {
		return err
	}
	if err := c.Remove(cmd.Context(), id); err != nil {
		return err
	}
	return a.show(map[string]any{"cid": id, "removed": true}, func(w io.Writer) { fmt.Fprintln(w, "removed", id) })
}
