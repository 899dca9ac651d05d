package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newDataImportCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE.car",
		Short: "Add the blocks of a CAR and keep its roots; - reads standard input",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataImport(cmd, a, args[0]) },
	}
}

func runDataImport(cmd *cobra.Command, a *app, file string) error {
	in := a.in
	if file != "-" {
		if err := mustExist(file); err != nil {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return perigee.E("data import", perigee.Internal, err, "cannot read %s", file)
		}
		defer f.Close()
		in = f
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	roots, err := c.ImportCAR(cmd.Context(), in)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"roots": roots}, func(w io.Writer) {
		for _, r := range roots {
			fmt.Fprintln(w, r)
		}
	})
}
