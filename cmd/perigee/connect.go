package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newConnectCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "connect MULTIADDR",
		Short:   "Connect the node to a peer",
		Example: "  perigee connect /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…",
		Args:    takes(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runConnect(cmd, a, args[0]) },
	}
}

func runConnect(cmd *cobra.Command, a *app, addr string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	if err := c.Connect(cmd.Context(), addr); err != nil {
		return err
	}
	return a.show(map[string]any{"addr": addr, "connected": true}, func(w io.Writer) { fmt.Fprintln(w, "connected to", addr) })
}
