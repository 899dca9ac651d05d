package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"

	"github.com/perigee-network/perigee/client"
)

func newDatasetJoinCmd(a *app) *cobra.Command {
	var copied bool
	c := &cobra.Command{
		Use:   "join OWNER/NAME PATH|CID…",
		Short: "Add data of this node to somebody's dataset",
		Args:  takes(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDatasetJoin(cmd, a, args[0], copied, args[1:])
		},
	}
	c.Flags().BoolVar(&copied, "copy", false, "copy paths into the node instead of indexing them in place")
	return c
}

func runDatasetJoin(cmd *cobra.Command, a *app, dataset string, copied bool, what []string) error {
	owner, name, err := perigee.ParseDatasetName(dataset)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	roots, err := a.datasetRoots(cmd.Context(), c, what, copied)
	if err != nil {
		return err
	}
	d, err := c.Join(cmd.Context(), owner, name, client.JoinRequest{Parts: roots})
	if err != nil {
		return err
	}
	return a.show(d, func(w io.Writer) {
		fmt.Fprintf(w, "joined %s/%s, which now has %s\n", d.Owner, d.Name, plural(int64(len(d.Parts)), "part", "parts"))
	})
}
