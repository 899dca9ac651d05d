package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newJobExplainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain FILE|ID",
		Short: "Say where a job would run or ran, and why each candidate was taken or refused",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runJobExplain(cmd, a, args[0]) },
	}
}

func runJobExplain(cmd *cobra.Command, a *app, what string) error {
	ctx := cmd.Context()
	var job *perigee.Job
	if info, err := os.Stat(what); what == "-" || err == nil && !info.IsDir() {
		if job, err = readJob(a, what); err != nil {
			return err
		}
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	var x perigee.Explanation
	if job != nil {
		if err = a.localize(ctx, c, job, filepath.Dir(what)); err == nil {
			x, err = c.Explain(ctx, *job)
		}
	} else {
		x, err = c.ExplainJob(ctx, what)
	}
	if err != nil {
		return err
	}
	return a.show(x, func(w io.Writer) { printExplanation(w, &x) })
}

func printExplanation(w io.Writer, x *perigee.Explanation) {
	pairs(w, "parts", strconv.Itoa(x.Parts), "input", bytesText(x.Bytes), "to move", bytesText(x.Transfer), "price", x.Price.String()+" credits")
	fmt.Fprintln(w)
	t := newTable("PROVIDER", "REGION", ">SLOTS", ">HAS", ">PARTS", ">SCORE", ">PRICE", "REFUSED")
	for _, c := range x.Candidates {
		refused := c.Reason
		if c.Rule != "" {
			refused = c.Rule + ": " + c.Reason
		}
		t.row(string(c.Provider), orDash(c.Region), strconv.Itoa(c.Slots), bytesText(c.LocalBytes), strconv.Itoa(c.Assigned),
			fmt.Sprintf("%.3g s", c.Score), c.Price.String(), orDash(refused))
	}
	t.print(w)
	for _, u := range x.Unplaced {
		fmt.Fprintf(w, "part %d has no place: %s\n", u.Part, u.Reason)
	}
}
