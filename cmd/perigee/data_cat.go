package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newDataCatCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cat CID[/path]",
		Short: "Print a file",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataCat(cmd, a, args[0]) },
	}
}

func runDataCat(cmd *cobra.Command, a *app, what string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	f, err := c.Open(cmd.Context(), what)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(a.out, f)
	var known *perigee.Error
	if errors.As(err, &known) { // reading failed, not writing
		return known
	}
	return written(err)
}
