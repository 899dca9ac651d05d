package client

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/perigee-network/perigee"
)

// MaxReceiptFile bounds a receipt in any of its forms, in bytes. JSON writes
// links and bytes at greater length than DAG-CBOR.
const MaxReceiptFile = 2 * perigee.MaxMessage

// FailTrailer is the HTTP trailer that holds the perigee.Fault, as JSON, of an
// answer that failed half-way.
const FailTrailer = "Perigee-Fault"

// ParseReceipt reads a receipt in any of its forms: canonical DAG-CBOR as
// stored, DAG-JSON, or the JSON of the API and of `perigee receipt show --json`
// (with or without the report around it). It returns the receipt and the CID of
// its canonical form. It checks form only; see perigee.Receipt.Check. Errors are
// of kind Invalid.
func ParseReceipt(b []byte) (*perigee.Receipt, perigee.CID, error) {
	const op = "client.ParseReceipt"
	if len(b) > MaxReceiptFile {
		return nil, perigee.CID{}, perigee.E(op, perigee.Invalid, "a receipt has at most %d bytes, this has %d", MaxReceiptFile, len(b))
	}
	var r perigee.Receipt
	if text := bytes.TrimSpace(b); len(text) > 0 && text[0] == '{' {
		if err := decodeReceiptJSON(text, &r); err != nil {
			return nil, perigee.CID{}, perigee.E(op, perigee.Invalid, err, "not a receipt")
		}
	} else if err := perigee.Decode(b, &r); err != nil {
		return nil, perigee.CID{}, perigee.E(op, perigee.Invalid, err, "neither DAG-CBOR nor JSON of a receipt")
	}
	c, _, err := perigee.LinkTo(&r)
	if err != nil {
		return nil, perigee.CID{}, perigee.E(op, perigee.Invalid, err, "not a receipt")
	}
	return &r, c, nil
}

// CheckReceipt reads a receipt as ParseReceipt does and checks it offline. A
// receipt that does not hold is a report, not an error.
func CheckReceipt(b []byte) (ReceiptReport, error) {
	r, c, err := ParseReceipt(b)
	if err != nil {
		return ReceiptReport{}, err
	}
	report := ReceiptReport{CID: c, Valid: true, Receipt: r}
	if err := r.Check(); err != nil {
		report.Valid, report.Reason = false, err.Error()
	}
	return report, nil
}

// ReceiptReference reports whether b is {"cid": CID} rather than a receipt.
func ReceiptReference(b []byte) (perigee.CID, bool) {
	var ref struct {
		CID perigee.CID `json:"cid"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if dec.Decode(&ref) != nil || !ref.CID.Defined() {
		return perigee.CID{}, false
	}
	return ref.CID, true
}

// maxReceiptDepth bounds the nesting of a receipt's JSON.
const maxReceiptDepth = 16

func decodeReceiptJSON(text []byte, r *perigee.Receipt) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return err
	}
	if dec.More() {
		return perigee.E("client", perigee.Invalid, "more than one JSON value")
	}
	if m, ok := tree.(map[string]any); ok && m["receipt"] != nil && m["valid"] != nil {
		tree = m["receipt"]
	}
	tree, err := fromDAGJSON(tree, maxReceiptDepth)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	strict := json.NewDecoder(bytes.NewReader(plain))
	strict.DisallowUnknownFields()
	return strict.Decode(r)
}

// fromDAGJSON replaces DAG-JSON's links {"/": CID} and bytes {"/": {"bytes":
// base64}} by the strings that encoding/json reads, after
// https://ipld.io/specs/codecs/dag-json/spec/.
func fromDAGJSON(v any, depth int) (any, error) {
	if depth == 0 {
		return nil, perigee.E("client", perigee.Invalid, "the JSON is nested too deeply")
	}
	switch v := v.(type) {
	case map[string]any:
		if special, ok := v["/"]; ok && len(v) == 1 {
			return fromReserved(special)
		}
		for k, e := range v {
			x, err := fromDAGJSON(e, depth-1)
			if err != nil {
				return nil, err
			}
			v[k] = x
		}
	case []any:
		for i, e := range v {
			x, err := fromDAGJSON(e, depth-1)
			if err != nil {
				return nil, err
			}
			v[i] = x
		}
	}
	return v, nil
}

func fromReserved(special any) (any, error) {
	if link, ok := special.(string); ok {
		return link, nil
	}
	if m, ok := special.(map[string]any); ok && len(m) == 1 {
		if text, ok := m["bytes"].(string); ok {
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
			if err != nil {
				return nil, err
			}
			return raw, nil // encoding/json writes it padded, as it reads it
		}
	}
	return nil, perigee.E("client", perigee.Invalid, `{"/": …} holds neither a link nor bytes`)
}
