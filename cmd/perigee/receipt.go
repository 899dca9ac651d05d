package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

func newReceiptCmd(a *app) *cobra.Command {
	return group("receipt", "Show and check the signed records of executions", newReceiptShowCmd(a), newReceiptVerifyCmd(a))
}

func newReceiptShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show CID",
		Short: "Show a receipt",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runReceiptShow(cmd, a, args[0]) },
	}
}

func runReceiptShow(cmd *cobra.Command, a *app, id string) error {
	r, err := fetchReceipt(cmd, a, id)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r.Receipt)
	}
	return a.show(nil, func(w io.Writer) { printReceipt(w, r) })
}

func fetchReceipt(cmd *cobra.Command, a *app, id string) (client.ReceiptReport, error) {
	cid, err := perigee.ParseCID(id)
	if err != nil {
		return client.ReceiptReport{}, err
	}
	c, err := a.connect()
	if err != nil {
		return client.ReceiptReport{}, err
	}
	return c.Receipt(cmd.Context(), cid)
}

func printReceipt(w io.Writer, report client.ReceiptReport) {
	r := report.Receipt
	started, finished := time.UnixMicro(r.Started), time.UnixMicro(r.Finished)
	valid := "yes: signed by its provider, and the job key is its part's"
	if !report.Valid {
		valid = "no: " + report.Reason
	}
	pairs(w,
		"receipt", report.CID.String(),
		"valid", valid,
		"provider", string(r.Provider),
		"requester", string(r.Requester),
		"job key", r.JobKey.String(),
		"module", r.Part.Module.String(),
		"class", r.Class,
		"output", r.Result.Output.String(),
		"exit code", fmt.Sprint(r.Result.ExitCode),
		"fuel", countText(r.Result.Fuel),
		"bytes read", bytesText(r.BytesRead),
		"bytes fetched", bytesText(r.BytesFetched),
		"CPU time", span(time.Duration(r.CPUMicros)*time.Microsecond),
		"peak memory", bytesText(r.PeakMemory),
		"ran", started.UTC().Format(time.RFC3339)+", "+span(finished.Sub(started)),
		"price", r.Price.String()+" credits",
	)
	for _, in := range r.Part.Inputs {
		what := in.CID.String()
		if in.Length > 0 {
			what += fmt.Sprintf(" bytes %d to %d", in.Offset, in.Offset+in.Length)
		}
		fmt.Fprintf(w, "input at %s: %s\n", in.Mount, what)
	}
}
