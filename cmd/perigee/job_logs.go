package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee/client"
)

func newJobLogsCmd(a *app) *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a job's programs wrote",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runJobLogs(cmd, a, args[0], follow) },
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job is finished")
	return c
}

func runJobLogs(cmd *cobra.Command, a *app, id string, follow bool) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if a.json {
		enc := json.NewEncoder(a.out)
		return c.Logs(ctx, id, follow, func(chunk client.LogChunk) error { return written(enc.Encode(chunk)) })
	}
	// All that was written is printed, of the parts and of the merge.
	g := newGuestOutput(a, id, false)
	none := a.newMeter("")
	none.end()
	g.attach(c, none)
	defer g.flush()
	return c.Logs(ctx, id, follow, func(chunk client.LogChunk) error { return g.write(ctx, chunk) })
}
