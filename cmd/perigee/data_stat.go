package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDataStatCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "stat CID[/path]",
		Short: "Tell what a CID is and how much of it this node has",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataStat(cmd, a, args[0]) },
	}
}

func runDataStat(cmd *cobra.Command, a *app, what string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	info, err := c.Stat(cmd.Context(), what)
	if err != nil {
		return err
	}
	return a.show(info, func(w io.Writer) {
		pairs(w,
			"CID", info.CID.String(),
			"kind", info.Kind,
			"size", fmt.Sprintf("%s (%s bytes)", bytesText(info.Size), countText(info.Size)),
			"files", countText(info.Files),
			"blocks", countText(info.Blocks),
			"here", fmt.Sprintf("%s (%s bytes)", bytesText(info.Local), countText(info.Local)),
		)
	})
}
