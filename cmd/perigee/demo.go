package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/demo"
)

// newDemoCmd returns `perigee demo`.
func newDemoCmd(a *app) *cobra.Command {
	var nodes int
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: a million flights, counted where they lie, on a network of its own",
		Long: `Starts separate node processes on this machine that reach nothing but loopback,
spreads one million real flights over them, and runs one job over all of them:
departures, mean delay and worst decile by airport. Then it says which node did
what, checks every receipt, and asks for the same job again.

The exit code is 0 only if less than a hundredth of the input moved between
nodes, all receipts verify, and the second run was answered by reuse. All it
makes lies in a temporary directory, which is removed at the end.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), nodes, keep) },
	}
	cmd.Flags().IntVar(&nodes, "nodes", 5, "number of nodes")
	cmd.Flags().BoolVar(&keep, "keep", false, "let the network run until Ctrl-C")
	return cmd
}

func (a *app) demo(ctx context.Context, nodes int, keep bool) error {
	binary, err := os.Executable()
	if err != nil {
		return perigee.E("perigee.demo", perigee.Internal, err, "cannot find this program's own file")
	}
	o := demo.Options{Nodes: nodes, Binary: binary, Out: a.out, Progress: a.errOut, Terminal: a.errTTY}
	if a.json {
		o.Out = nil
	}
	told := false
	tell := func(r *demo.Report) error {
		if !a.json || r == nil || told {
			return nil
		}
		told = true
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	if keep {
		o.Keep = func(r *demo.Report) error {
			if err := tell(r); err != nil {
				return err
			}
			a.note("\nThe network stays up, with its homes below %s, until Ctrl-C.", r.Home)
			<-ctx.Done()
			return nil
		}
	}
	r, err := demo.Run(ctx, o)
	if failed := tell(r); err == nil {
		err = failed
	}
	return err
}
