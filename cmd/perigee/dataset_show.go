package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newDatasetShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show OWNER/NAME",
		Short: "Show a dataset and where its parts lie",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDatasetShow(cmd, a, args[0]) },
	}
}

func runDatasetShow(cmd *cobra.Command, a *app, dataset string) error {
	owner, name, err := perigee.ParseDatasetName(dataset)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	d, err := c.Dataset(cmd.Context(), owner, name)
	if err != nil {
		return err
	}
	return a.show(d, func(w io.Writer) {
		var size int64
		for _, p := range d.Parts {
			size += p.Size
		}
		pairs(w, "dataset", string(d.Owner)+"/"+d.Name, "published", ago(time.UnixMilli(d.Created)),
			"parts", countText(int64(len(d.Parts))), "size", bytesText(size), "join", d.Join)
		fmt.Fprintln(w)
		t := newTable("PATH", ">SIZE", "CID", "HOLDERS")
		for _, p := range d.Parts {
			held := make([]string, len(p.Holders))
			for i, h := range p.Holders {
				held[i] = h.Short()
			}
			t.row(p.Path, bytesText(p.Size), p.CID.String(), orDash(strings.Join(held, " ")))
		}
		t.print(w)
	})
}
