package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newDataVerifyCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify CID",
		Short: "Check every byte below a root against its CID",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataVerify(cmd, a, args[0]) },
	}
}

func runDataVerify(cmd *cobra.Command, a *app, root string) error {
	c, id, err := a.connectFor(root)
	if err != nil {
		return err
	}
	m := a.newMeter("verifying")
	r, err := c.Verify(cmd.Context(), id, m.bytes)
	m.end()
	if err != nil {
		return err
	}
	err = a.show(r, func(w io.Writer) {
		fmt.Fprintf(w, "checked %s, %s, in %.2f s\n", plural(r.Blocks, "block", "blocks"), bytesText(r.Bytes), r.Seconds)
		for _, b := range r.Bad {
			fmt.Fprintf(w, "bad: %s %s %s\n", b.CID, b.Path, b.Reason)
		}
	})
	if err == nil && !r.OK {
		return perigee.E("data verify", perigee.Corrupt, "%s is damaged: %s bad", id, plural(int64(len(r.Bad)), "block is", "blocks are"))
	}
	return err
}
