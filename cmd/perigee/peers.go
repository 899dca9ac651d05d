package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newPeersCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "peers",
		Short: "List connected peers",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runPeers(cmd, a) },
	}
}

func runPeers(cmd *cobra.Command, a *app) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	peers, err := c.Peers(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(peers, func(w io.Writer) {
		if len(peers) == 0 {
			fmt.Fprintln(w, "no peers; connect to one with: perigee connect MULTIADDR")
			return
		}
		t := newTable("PEER", ">LATENCY", "DIRECTION", "RELAYED", "VERSION", "ADDRESS")
		for _, p := range peers {
			latency, addr := "-", "-"
			if p.LatencyMS > 0 {
				latency = fmt.Sprintf("%.1f ms", p.LatencyMS)
			}
			if len(p.Addrs) > 0 {
				addr = p.Addrs[0]
			}
			t.row(string(p.ID), latency, orDash(p.Direction), yesNo(p.Relayed), orDash(p.Version), addr)
		}
		t.print(w)
	})
}
