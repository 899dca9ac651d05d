package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newDatasetListCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List known datasets",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runDatasetList(cmd, a) },
	}
}

func runDatasetList(cmd *cobra.Command, a *app) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	list, err := c.Datasets(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "no datasets known")
			return
		}
		t := newTable("DATASET", ">PARTS", ">SIZE", ">HOLDERS", "JOIN", "PUBLISHED")
		for _, d := range list {
			t.row(string(d.Owner)+"/"+d.Name, countText(int64(d.Parts)), bytesText(d.Size), fmt.Sprint(d.Holders), d.Join, ago(d.Created))
		}
		t.print(w)
	})
}
