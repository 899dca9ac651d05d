package main

import (
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

func newDataExportCmd(a *app) *cobra.Command {
	var dest string
	c := &cobra.Command{
		Use:   "export CID -o FILE.car",
		Short: "Write all blocks below a root as a CAR",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runDataExport(cmd, a, args[0], dest) },
	}
	c.Flags().StringVarP(&dest, "output", "o", "", "file to write, or - for standard output (required)")
	return c
}

func runDataExport(cmd *cobra.Command, a *app, root, dest string) error {
	if dest == "" {
		return &usageError{msg: "say where to write the CAR with -o FILE.car", cmd: cmd.CommandPath()}
	}
	c, id, err := a.connectFor(root)
	if err != nil {
		return err
	}
	if dest == "-" {
		return c.ExportCAR(cmd.Context(), id, a.out)
	}
	// A new file appears complete or not at all.
	tmp, err := os.CreateTemp(filepath.Dir(dest), ".perigee-car-*")
	if err != nil {
		return perigee.E("data export", perigee.Internal, err, "cannot write %s", dest)
	}
	defer os.Remove(tmp.Name()) // gone already once it was renamed
	m := a.newMeter("exporting")
	size := int64(0)
	err = c.ExportCAR(cmd.Context(), id, writerFunc(func(b []byte) (int, error) {
		n, err := tmp.Write(b)
		size += int64(n)
		m.bytes(client.Progress{Done: size})
		return n, err
	}))
	m.end()
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), dest); err != nil {
		return perigee.E("data export", perigee.Internal, err, "cannot write %s", dest)
	}
	return a.show(map[string]any{"cid": id, "path": dest, "size": size}, func(w io.Writer) {
		_, _ = io.WriteString(w, "wrote "+dest+", "+bytesText(size)+"\n")
	})
}

// writerFunc is a function as an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
