package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee/client"
)

func newDataLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls [CID[/path]]",
		Short: "List a directory, or the roots that this node keeps",
		Args:  takes(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return runPins(cmd, a)
			}
			return runDataLs(cmd, a, args[0])
		},
	}
}

func runDataLs(cmd *cobra.Command, a *app, what string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	entries, err := c.Ls(cmd.Context(), what)
	if err != nil {
		return err
	}
	return a.show(entries, func(w io.Writer) {
		t := newTable("CID", ">SIZE", "NAME")
		for _, e := range entries {
			name, size := e.Name, bytesText(e.Size)
			switch e.Kind {
			case client.KindDir:
				name, size = name+"/", "-"
			case client.KindSymlink:
				name, size = name+" -> "+e.Target, "-"
			}
			t.row(e.CID.String(), size, name)
		}
		t.print(w)
	})
}

func runPins(cmd *cobra.Command, a *app) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	pins, err := c.Pins(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(pins, func(w io.Writer) {
		if len(pins) == 0 {
			fmt.Fprintln(w, "this node keeps nothing yet; add something with: perigee data add PATH")
			return
		}
		t := newTable("CID", ">SIZE", "KEPT FOR", "NAME")
		for _, p := range pins {
			t.row(p.CID.String(), bytesText(p.Size), orDash(strings.Join(ownerKinds(p.Owners), ", ")), p.Name)
		}
		t.print(w)
	})
}

// ownerKinds tells what keeps a root without the names of jobs and peers.
func ownerKinds(owners []string) []string {
	kinds := make([]string, 0, len(owners))
	for _, o := range owners {
		kind, _, _ := strings.Cut(o, "/")
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}
