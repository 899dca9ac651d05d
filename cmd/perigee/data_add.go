package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// addedPath is what `perigee data add --json` prints for each path.
type addedPath struct {
	Path string `json:"path"`
	client.Added
}

func newDataAddCmd(a *app) *cobra.Command {
	var o client.AddOptions
	c := &cobra.Command{
		Use:   "add PATH…",
		Short: "Add files and directories",
		Long: `Add files and directories and print their CIDs. With --in-place the files stay
where they are and only an index of them is kept; a file that changes later is
noticed and never served wrong. Without a running node, one is started for the
duration of the command.`,
		Args: takes(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error { return runDataAdd(cmd, a, o, args) },
	}
	c.Flags().BoolVar(&o.InPlace, "in-place", false, "index the files where they lie, without a copy")
	c.Flags().StringVar(&o.Name, "name", "", "a name for people, shown in listings")
	c.Flags().StringVar(&o.Chunker, "chunker", "", "how files are cut, such as size-1048576")
	c.Flags().StringVar(&o.Profile, "profile", "", "CID profile: unixfs-v1-2025 (default) or unixfs-v0-2015")
	return c
}

func runDataAdd(cmd *cobra.Command, a *app, o client.AddOptions, paths []string) error {
	for _, p := range paths { // nothing is added if something is missing
		if err := mustExist(p); err != nil {
			return err
		}
	}
	s, err := a.session(cmd.Context())
	if err != nil {
		return err
	}
	defer s.close()
	for _, p := range paths {
		m := a.newMeter(p)
		added, err := s.Add(cmd.Context(), p, o, m.bytes)
		m.end()
		if err != nil {
			return err
		}
		if err := a.show(addedPath{p, added}, func(w io.Writer) { fmt.Fprintln(w, added.CID, p) }); err != nil {
			return err
		}
		if !a.json && a.errTTY {
			a.note("%s in %s, %.2f s", bytesText(added.Size), plural(added.Files, "file", "files"), added.Seconds)
		}
	}
	return nil
}

// mustExist refuses a path of this machine where there is nothing.
func mustExist(path string) error {
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return nil
	case os.IsPermission(err):
		return perigee.E("perigee", perigee.Refused, "no permission to read %s", path)
	}
	return perigee.E("perigee", perigee.NotFound, "there is no file or directory %s", path)
}
