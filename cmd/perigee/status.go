package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell what the node is and does",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runStatus(cmd, a) },
	}
}

func runStatus(cmd *cobra.Command, a *app) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	st, err := c.Status(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(st, func(w io.Writer) {
		pairs(w,
			"peer ID", string(st.PeerID),
			"account", string(st.Account),
			"version", st.Version,
			"started", ago(st.Started),
			"home", st.Home,
			"API", st.API,
			"region", st.Region,
			"roles", strings.Join(st.Roles, ", "),
			"engine", st.Engine,
			"sandbox", st.Sandbox,
			"peers", fmt.Sprint(st.Peers),
			"jobs", fmt.Sprint(st.Jobs),
			"running", plural(int64(st.Running), "execution", "executions"),
		)
		for _, addr := range st.Addrs {
			fmt.Fprintln(w, "listening on", addr)
		}
	})
}
