package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

func newReceiptVerifyCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify CID|FILE",
		Short: "Check a receipt: a file needs no node and no network",
		Long: `Check that a receipt is signed by the provider it names and that its job key is
the key of its part. A file may hold the receipt as DAG-CBOR, as DAG-JSON or as
printed by perigee receipt show --json; - reads standard input.`,
		Args: takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return runReceiptVerify(cmd, a, args[0]) },
	}
}

func runReceiptVerify(cmd *cobra.Command, a *app, what string) error {
	report, err := receiptReport(cmd, a, what)
	if err != nil {
		return err
	}
	err = a.show(report, func(w io.Writer) {
		if report.Valid {
			fmt.Fprintf(w, "valid: %s, by provider %s\n", report.CID, report.Receipt.Provider)
		}
	})
	if err == nil && !report.Valid {
		return perigee.E("receipt verify", perigee.Corrupt, "not valid: %s", report.Reason)
	}
	return err
}

func receiptReport(cmd *cobra.Command, a *app, what string) (client.ReceiptReport, error) {
	b, err := readLimited(a, what, client.MaxReceiptFile)
	if errors.Is(err, os.ErrNotExist) {
		if _, cerr := perigee.ParseCID(what); cerr != nil {
			return client.ReceiptReport{}, perigee.E("receipt verify", perigee.NotFound, "%s is neither a file nor a CID", what)
		}
		return fetchReceipt(cmd, a, what)
	}
	if err != nil {
		return client.ReceiptReport{}, err
	}
	return client.CheckReceipt(b)
}

// readLimited reads a file, or standard input for "-", of at most limit bytes.
func readLimited(a *app, name string, limit int64) ([]byte, error) {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil, perigee.E("perigee", perigee.NotFound, err, "there is no file %s", name)
			}
			return nil, perigee.E("perigee", perigee.Internal, err, "cannot read %s", name)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, perigee.E("perigee", perigee.Internal, err, "cannot read %s", name)
	}
	if int64(len(b)) > limit {
		return nil, perigee.E("perigee", perigee.Invalid, "%s has more than %s", name, bytesText(limit))
	}
	return b, nil
}
