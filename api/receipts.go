package api

import (
	"bytes"
	"context"
	"net/http"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// routeReceipts serves receipts, which are blocks like any other.
func (s *Server) routeReceipts() {
	route(s, op("Receipt", http.MethodGet, "/v1/receipts/{cid}", "receipts", "A receipt", "With whether it is valid."),
		func(ctx context.Context, in *Root) (*body[client.ReceiptReport], error) {
			c, err := in.parse()
			if err != nil {
				return nil, err
			}
			return answer(s.receipt(ctx, c))
		})
	type verify struct {
		RawBody []byte
	}
	o := op("VerifyReceipt", http.MethodPost, "/v1/receipts/verify", "receipts", "Check a receipt",
		"The body is a receipt as DAG-CBOR, DAG-JSON or this API's JSON, or {\"cid\": CID} of one to look up.")
	o.MaxBodyBytes = client.MaxReceiptFile + 1
	route(s, o, func(ctx context.Context, in *verify) (*body[client.ReceiptReport], error) {
		if c, ok := client.ReceiptReference(in.RawBody); ok {
			return answer(s.receipt(ctx, c))
		}
		return answer(client.CheckReceipt(bytes.Clone(in.RawBody))) // huma takes RawBody back
	})
}

// receipt fetches and checks the receipt with CID c.
func (s *Server) receipt(ctx context.Context, c perigee.CID) (client.ReceiptReport, error) {
	if c.Codec() != perigee.CodecDagCBOR {
		return client.ReceiptReport{}, perigee.E("api.Receipt", perigee.Invalid, "%s does not name a receipt: receipts are DAG-CBOR", c)
	}
	b, err := s.cfg.Data.GetBlock(ctx, c)
	if err != nil {
		return client.ReceiptReport{}, err
	}
	if got := perigee.SumCID(perigee.CodecDagCBOR, b); got != c {
		return client.ReceiptReport{}, perigee.E("api.Receipt", perigee.Corrupt, "the block %s has the content of %s", c, got)
	}
	r, err := client.CheckReceipt(b)
	if err != nil {
		return client.ReceiptReport{}, perigee.E("api.Receipt", perigee.Invalid, err, "%s is not a receipt", c)
	}
	return r, nil
}
