package main

import (
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"
)

func newDataGetCmd(a *app) *cobra.Command {
	var dest string
	c := &cobra.Command{
		Use:   "get CID[/path]",
		Short: "Write a file or directory to this machine",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataGet(cmd, a, args[0], dest) },
	}
	c.Flags().StringVarP(&dest, "output", "o", "", "where to write; default the last element of the path, here")
	return c
}

func runDataGet(cmd *cobra.Command, a *app, what, dest string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	if dest == "" {
		dest = path.Base(strings.TrimSuffix(what, "/"))
	}
	m := a.newMeter("getting " + dest)
	err = c.Get(cmd.Context(), what, dest, m.bytes)
	m.end()
	if err != nil {
		return err
	}
	return a.show(map[string]string{"source": what, "path": dest}, func(w io.Writer) { fmt.Fprintln(w, "wrote", dest) })
}
