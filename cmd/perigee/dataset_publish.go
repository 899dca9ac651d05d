package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

func newDatasetPublishCmd(a *app) *cobra.Command {
	var join string
	var copied bool
	c := &cobra.Command{
		Use:   "publish NAME PATH|CID…",
		Short: "Publish data as a dataset of this node's account",
		Long: `Publish data as OWNER/NAME, with this node's account as owner. A directory stands
for the files below it. Paths are indexed in place unless --copy is given.
Publishing a name again replaces it.`,
		Args: takes(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDatasetPublish(cmd, a, args[0], join, copied, args[1:])
		},
	}
	c.Flags().StringVar(&join, "join", "any", "who may add parts later: any or none; a part names who brought it")
	c.Flags().BoolVar(&copied, "copy", false, "copy paths into the node instead of indexing them in place")
	return c
}

func runDatasetPublish(cmd *cobra.Command, a *app, name, join string, copied bool, what []string) error {
	if join != "any" && join != "none" {
		return &usageError{msg: "--join is any or none", cmd: cmd.CommandPath()}
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	roots, err := a.datasetRoots(cmd.Context(), c, what, copied)
	if err != nil {
		return err
	}
	d, err := c.Publish(cmd.Context(), client.PublishRequest{Name: name, Parts: roots, Join: join})
	if err != nil {
		return err
	}
	return a.show(d, func(w io.Writer) {
		fmt.Fprintf(w, "published %s/%s with %s\n", d.Owner, d.Name, plural(int64(len(d.Parts)), "part", "parts"))
	})
}

// datasetRoots adds what are paths. One directory alone gives its files their
// own names; of several things each keeps its name.
func (a *app) datasetRoots(ctx context.Context, c *client.Client, what []string, copied bool) ([]client.DatasetRoot, error) {
	roots := make([]client.DatasetRoot, 0, len(what))
	for _, w := range what {
		src, err := findSource(w)
		if err != nil {
			return nil, err
		}
		root := client.DatasetRoot{CID: src.cid, Path: w}
		isDir := src.isDir
		switch src.kind {
		case sourcePath:
			added, err := a.add(ctx, c, w, client.AddOptions{InPlace: !copied && c.Local()})
			if err != nil {
				return nil, err
			}
			root.CID, root.Path = added.CID, filepath.Base(absolute(w))
		case sourceCID:
			info, err := c.Stat(ctx, w)
			if err != nil {
				return nil, err
			}
			root.CID, isDir = info.CID, info.Kind == client.KindDir
			root.Path = filepath.Base(w)
		default:
			return nil, perigee.E("dataset", perigee.Invalid, "%s is a dataset; a dataset is made of files, directories and CIDs", w)
		}
		if len(what) == 1 && isDir {
			root.Path = ""
		}
		roots = append(roots, root)
	}
	return roots, nil
}
