package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDataUnpinCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "unpin CID",
		Short: "Keep a root no longer; garbage collection may take it",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataUnpin(cmd, a, args[0]) },
	}
}

func runDataUnpin(cmd *cobra.Command, a *app, root string) error {
	c, id, err := a.connectFor(root)
	if err != nil {
		return err
	}
	if err := c.Unpin(cmd.Context(), id); err != nil {
		return err
	}
	return a.show(map[string]any{"cid": id, "pinned": false}, func(w io.Writer) { fmt.Fprintln(w, "no longer keeping", id) })
}
