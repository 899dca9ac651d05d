package perigee

import (
	"encoding/json"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Multicodecs that Perigee makes and reads; see
// https://github.com/multiformats/multicodec/blob/master/table.csv.
const (
	CodecRaw     = 0x55
	CodecDagPB   = 0x70
	CodecDagCBOR = 0x71
)

// CID is an IPFS content identifier. It is comparable and usable as a map key;
// the zero value is "no CID". In JSON it is a string, in DAG-CBOR a link (tag 42).
type CID struct{ c cid.Cid }

// NewCID wraps a go-cid value.
func NewCID(c cid.Cid) CID { return CID{c} }

// ParseCID reads the text form of a CID, with or without a leading "/ipfs/".
// The error is of kind Invalid.
func ParseCID(s string) (CID, error) {
	if len(s) > 512 {
		return CID{}, E("perigee.ParseCID", Invalid, "a CID has at most 512 characters, this has %d", len(s))
	}
	if len(s) > 6 && s[:6] == "/ipfs/" {
		s = s[6:]
	}
	c, err := cid.Decode(s)
	if err != nil {
		return CID{}, E("perigee.ParseCID", Invalid, err, "%q is not a CID", s)
	}
	if c.ByteLen() > maxCIDBytes {
		return CID{}, E("perigee.ParseCID", Invalid, "a CID has at most %d bytes, this has %d", maxCIDBytes, c.ByteLen())
	}
	return CID{c}, nil
}

// maxCIDBytes bounds the binary form; only identity hashes come near.
const maxCIDBytes = 255

// SumCID returns the CIDv1 of data under sha2-256 and the given multicodec.
func SumCID(codec uint64, data []byte) CID {
	sum, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		panic(err) // sha2-256 is always registered
	}
	return CID{cid.NewCidV1(codec, sum)}
}

// Cid returns the go-cid value.
func (c CID) Cid() cid.Cid { return c.c }

// Defined reports whether c names anything.
func (c CID) Defined() bool { return c.c.Defined() }

// Codec returns the multicodec of the content, 0 for the zero CID.
func (c CID) Codec() uint64 {
	if !c.c.Defined() {
		return 0
	}
	return c.c.Prefix().Codec
}

// String returns the text form: base32 for CIDv1, base58 for CIDv0, "" for none.
func (c CID) String() string {
	if !c.c.Defined() {
		return ""
	}
	return c.c.String()
}

// MarshalJSON writes the text form.
func (c CID) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// UnmarshalJSON reads the text form; "" is the zero CID.
func (c *CID) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	return c.UnmarshalText([]byte(s))
}

// MarshalText writes the text form.
func (c CID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the text form; "" is the zero CID.
func (c *CID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*c = CID{}
		return nil
	}
	p, err := ParseCID(string(b))
	if err != nil {
		return err
	}
	*c = p
	return nil
}

// cidTag is DAG-CBOR's tag for links; its content is 0x00 and the binary CID,
// after https://ipld.io/specs/codecs/dag-cbor/spec/#links.
const cidTag = 42

// MarshalCBOR writes a link, or null for the zero CID.
func (c CID) MarshalCBOR() ([]byte, error) {
	if !c.c.Defined() {
		return []byte{0xf6}, nil
	}
	return encMode.Marshal(cbor.Tag{Number: cidTag, Content: append([]byte{0}, c.c.Bytes()...)})
}

// UnmarshalCBOR reads a link or null.
func (c *CID) UnmarshalCBOR(b []byte) error {
	if len(b) == 1 && b[0] == 0xf6 {
		*c = CID{}
		return nil
	}
	var t cbor.RawTag
	if err := decMode.Unmarshal(b, &t); err != nil {
		return err
	}
	var raw []byte
	if t.Number != cidTag {
		return E("perigee.CID", Corrupt, "CBOR tag %d where a link (42) is due", t.Number)
	}
	if err := decMode.Unmarshal(t.Content, &raw); err != nil {
		return err
	}
	if len(raw) < 2 || len(raw) > 1+maxCIDBytes || raw[0] != 0 {
		return E("perigee.CID", Corrupt, "malformed link")
	}
	p, err := cid.Cast(raw[1:])
	if err != nil {
		return E("perigee.CID", Corrupt, err, "malformed link")
	}
	*c = CID{p}
	return nil
}
