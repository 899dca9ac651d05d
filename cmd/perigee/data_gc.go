package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDataGCCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove blocks that nothing keeps or uses",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runDataGC(cmd, a) },
	}
}

func runDataGC(cmd *cobra.Command, a *app) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	r, err := c.GC(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(r, func(w io.Writer) {
		fmt.Fprintf(w, "removed %s, %s; kept %s\n", plural(r.Blocks, "block", "blocks"), bytesText(r.Bytes), plural(r.Kept, "block", "blocks"))
	})
}
