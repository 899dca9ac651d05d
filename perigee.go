// Package perigee is the vocabulary of Perigee, a decentralised
// compute-over-data network: the nouns every other package speaks in, their
// canonical encodings, their validation and their errors. It performs no I/O.
//
// A requester asks for a [Job]. The job's inputs are split into [Part]s, each
// of which is everything that determines one result. Providers publish
// [Offer]s, answer a [BidRequest] with a [Bid], accept a [Lease] signed by the
// requester and run [Execution]s, each ending in a [Result] inside a signed
// [Receipt].
//
// Every wire and stored form is canonical DAG-CBOR (see [Encode]); every form
// shown to people and programs over the HTTP API is JSON. All values are plain
// data: safe to copy, not safe to mutate concurrently.
package perigee

import (
	"crypto/ed25519"
	"fmt"
	"strings"

	"github.com/mr-tron/base58"
)

// Version is the version of Perigee that this source tree builds.
const Version = "0.1.0"

// Amount is money in micro-credits: 1_000_000 is one credit. It marshals to
// JSON as an integer and prints as credits with six decimals.
type Amount int64

// String formats the amount in credits with six decimals, such as "1.500000".
func (a Amount) String() string {
	sign := ""
	u := uint64(a)
	if a < 0 {
		sign, u = "-", -u
	}
	return fmt.Sprintf("%s%d.%06d", sign, u/1e6, u%1e6)
}

// PeerID names a node. It is the base58 text of a libp2p peer ID whose key is
// Ed25519 ("12D3Koo…"); such an ID embeds the public key, so that a signature
// by a node can be checked with nothing but its ID.
type PeerID string

// peerIDPrefix is the identity multihash (0x00, length 0x24) of libp2p's
// protobuf wrapping of an Ed25519 public key (type 1, 32 bytes), after
// https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md.
var peerIDPrefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// PeerIDOf returns the peer ID of an Ed25519 public key.
func PeerIDOf(pub ed25519.PublicKey) PeerID {
	return PeerID(base58.Encode(append(append([]byte{}, peerIDPrefix...), pub...)))
}

// PublicKey returns the Ed25519 key inside the peer ID, or an error of kind
// Invalid when the ID is malformed or holds a key of another type.
func (p PeerID) PublicKey() (ed25519.PublicKey, error) {
	if len(p) > 64 {
		return nil, E("perigee.PeerID", Invalid, "peer ID is longer than 64 characters")
	}
	b, err := base58.Decode(string(p))
	if err != nil {
		return nil, E("perigee.PeerID", Invalid, err, "peer ID %q is not base58", string(p))
	}
	if len(b) != len(peerIDPrefix)+ed25519.PublicKeySize || string(b[:len(peerIDPrefix)]) != string(peerIDPrefix) {
		return nil, E("perigee.PeerID", Invalid, "peer ID %q does not hold an Ed25519 key", string(p))
	}
	return ed25519.PublicKey(b[len(peerIDPrefix):]), nil
}

// Short returns the last eight characters, enough to tell nodes apart in a table.
func (p PeerID) Short() string {
	if len(p) <= 8 {
		return string(p)
	}
	return string(p[len(p)-8:])
}

// AccountID names an account: the did:key form of an Ed25519 public key
// without its "did:key:" prefix ("z6Mk…"), after
// https://w3c-ccg.github.io/did-key-spec/ (multibase base58btc of the
// multicodec 0xed01 and the key).
type AccountID string

// AccountIDOf returns the account ID of an Ed25519 public key.
func AccountIDOf(pub ed25519.PublicKey) AccountID {
	return AccountID("z" + base58.Encode(append([]byte{0xed, 0x01}, pub...)))
}

// PublicKey returns the account's Ed25519 key, or an error of kind Invalid.
func (a AccountID) PublicKey() (ed25519.PublicKey, error) {
	if len(a) > 64 || !strings.HasPrefix(string(a), "z6Mk") {
		return nil, E("perigee.AccountID", Invalid, "account %q is not of the form z6Mk…", string(a))
	}
	b, err := base58.Decode(string(a[1:]))
	if err != nil || len(b) != 2+ed25519.PublicKeySize || b[0] != 0xed || b[1] != 0x01 {
		return nil, E("perigee.AccountID", Invalid, "account %q is not an Ed25519 key", string(a))
	}
	return ed25519.PublicKey(b[2:]), nil
}
