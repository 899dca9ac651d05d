package perigee

// Dataset is a named, signed manifest of parts that may lie on many nodes. A
// later Sequence of the same owner and name replaces an earlier one. Manifests
// larger than one message are split into Chunks; see package data.
type Dataset struct {
	Owner     AccountID     `json:"owner" cbor:"owner"`
	Name      string        `json:"name" cbor:"name"` // [a-z0-9][a-z0-9._-]{0,62}
	Sequence  uint64        `json:"sequence" cbor:"sequence"`
	Created   int64         `json:"created" cbor:"created"` // Unix milliseconds
	Node      PeerID        `json:"node" cbor:"node"`       // where joins are asked for
	Join      string        `json:"join" cbor:"join"`       // who may join: "any" or "none"
	Parts     []DatasetPart `json:"parts" cbor:"parts"`
	Signature []byte        `json:"signature" cbor:"signature"`
}

// DatasetPart is one file of a dataset.
type DatasetPart struct {
	Path    string    `json:"path" cbor:"path"` // slash-separated, relative, clean, unique within the dataset
	CID     CID       `json:"cid" cbor:"cid"`
	Size    int64     `json:"size" cbor:"size"`
	Holders []PeerID  `json:"holders" cbor:"holders"` // who said it holds the part
	By      AccountID `json:"by" cbor:"by"`           // who brought the part
}

// DatasetJoin asks a dataset's owner to add parts that the asking node holds.
type DatasetJoin struct {
	Owner     AccountID     `json:"owner" cbor:"owner"`
	Name      string        `json:"name" cbor:"name"`
	Account   AccountID     `json:"account" cbor:"account"`
	Node      PeerID        `json:"node" cbor:"node"`
	Created   int64         `json:"created" cbor:"created"` // Unix milliseconds
	Parts     []DatasetPart `json:"parts" cbor:"parts"`
	Signature []byte        `json:"signature" cbor:"signature"`
}
