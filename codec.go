package perigee

import (
	"bytes"

	"github.com/fxamacker/cbor/v2"
)

// MaxMessage bounds one encoded value, in bytes: the largest message a peer may
// send and the largest record kept. Bulk data never travels inside a message.
const MaxMessage = 4 << 20

// encMode is canonical DAG-CBOR: definite lengths, shortest integers, map keys
// ordered by length and then bytes, 64-bit floats, no tag but 42
// (https://ipld.io/specs/codecs/dag-cbor/spec/).
var encMode = func() cbor.EncMode {
	m, err := cbor.EncOptions{
		Sort:          cbor.SortLengthFirst,
		ShortestFloat: cbor.ShortestFloatNone,
		NaNConvert:    cbor.NaNConvertReject,
		InfConvert:    cbor.InfConvertReject,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
		Time:          cbor.TimeUnixMicro,
		TimeTag:       cbor.EncTagNone,
	}.EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

var decMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   32,
		MaxArrayElements:  1 << 18,
		MaxMapPairs:       1 << 16,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// Encode returns the canonical DAG-CBOR of v: the same value always gives the
// same bytes. Times are not used in encoded types; they travel as Unix
// nanoseconds in int64 fields.
func Encode(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, E("perigee.Encode", Internal, err, "cannot encode %T", v)
	}
	return b, nil
}

// Decode reads canonical DAG-CBOR into v. Bytes from a peer or a disk are
// hostile: it refuses more than MaxMessage bytes, unknown or repeated keys,
// trailing bytes, and any encoding that is not the canonical one, so that a
// signed or hashed value has exactly one form. Errors are of kind Corrupt.
func Decode(b []byte, v any) error {
	if len(b) > MaxMessage {
		return E("perigee.Decode", Corrupt, "%d bytes where at most %d are allowed", len(b), MaxMessage)
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return E("perigee.Decode", Corrupt, err, "malformed %T", v)
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return E("perigee.Decode", Corrupt, err, "malformed %T", v)
	}
	if !bytes.Equal(again, b) {
		return E("perigee.Decode", Corrupt, "%T is not in canonical form", v)
	}
	return nil
}

// LinkTo returns the CID of v's canonical DAG-CBOR and those bytes.
func LinkTo(v any) (CID, []byte, error) {
	b, err := Encode(v)
	if err != nil {
		return CID{}, nil, err
	}
	return SumCID(CodecDagCBOR, b), b, nil
}
