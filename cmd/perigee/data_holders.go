package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDataHoldersCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "holders CID",
		Short: "List the nodes that have a root",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataHolders(cmd, a, args[0]) },
	}
}

func runDataHolders(cmd *cobra.Command, a *app, root string) error {
	c, id, err := a.connectFor(root)
	if err != nil {
		return err
	}
	holders, err := c.Holders(cmd.Context(), id)
	if err != nil {
		return err
	}
	return a.show(holders, func(w io.Writer) {
		if len(holders) == 0 {
			fmt.Fprintln(w, "no node that could be asked has it")
			return
		}
		t := newTable("PEER", "THIS NODE", ">BYTES")
		for _, h := range holders {
			size := "-"
			if h.Bytes > 0 {
				size = bytesText(h.Bytes)
			}
			t.row(string(h.Peer), yesNo(h.Local), size)
		}
		t.print(w)
	})
}
