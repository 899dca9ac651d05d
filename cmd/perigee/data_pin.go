package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDataPinCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pin CID",
		Short: "Fetch what is missing of a root and keep it",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataPin(cmd, a, args[0]) },
	}
}

func runDataPin(cmd *cobra.Command, a *app, root string) error {
	c, id, err := a.connectFor(root)
	if err != nil {
		return err
	}
	m := a.newMeter("pinning")
	info, err := c.Pin(cmd.Context(), id, m.bytes)
	m.end()
	if err != nil {
		return err
	}
	return a.show(info, func(w io.Writer) { fmt.Fprintf(w, "keeping %s, %s\n", id, bytesText(info.Size)) })
}
