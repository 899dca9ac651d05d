package perigee

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Who may join a dataset.
const (
	JoinNone = "none" // only its owner adds parts
	JoinAny  = "any"  // any node may add parts that it holds
)

// Bounds of a dataset.
const (
	MaxDatasetParts   = 16 << 20 // parts
	MaxDatasetPath    = 1024     // bytes of a part's path
	MaxDatasetHolders = 256      // holders named of one part
	datasetChunkParts = 4096     // parts of a chunk
	datasetChunkBytes = 1 << 20  // bytes after which a chunk is cut
	maxDatasetChunks  = 12 << 10 // so that a head stays below 512 KiB
)

// Dataset is a named, signed manifest of parts that may lie on many nodes. A
// later Sequence of the same owner and name replaces an earlier one; of two
// with the same Sequence the one whose head has the bytewise greater CID counts.
//
// It travels and is kept as a [DatasetHead] and its chunks; Signature is the
// head's, so that CheckSignature works on both.
type Dataset struct {
	Owner     AccountID     `json:"owner" cbor:"owner"`
	Name      string        `json:"name" cbor:"name"` // [a-z0-9][a-z0-9._-]{0,62}
	Sequence  uint64        `json:"sequence" cbor:"sequence"`
	Created   int64         `json:"created" cbor:"created"` // Unix milliseconds
	Node      PeerID        `json:"node" cbor:"node"`       // where joins are asked for
	Join      string        `json:"join" cbor:"join"`       // who may join: "any" or "none"
	Parts     []DatasetPart `json:"parts" cbor:"parts"`     // sorted by Path
	Signature []byte        `json:"signature" cbor:"signature"`
}

// DatasetPart is one file of a dataset.
type DatasetPart struct {
	Path    string    `json:"path" cbor:"path"` // slash-separated, relative, clean, unique within the dataset
	CID     CID       `json:"cid" cbor:"cid"`
	Size    int64     `json:"size" cbor:"size"`
	Holders []PeerID  `json:"holders" cbor:"holders"` // who said it holds the part; sorted
	By      AccountID `json:"by" cbor:"by"`           // who brought the part
}

// DatasetHead is a dataset with its parts replaced by links to chunks: each is
// the canonical DAG-CBOR of a []DatasetPart, as Dataset.Split makes them.
type DatasetHead struct {
	Owner     AccountID `json:"owner" cbor:"owner"`
	Name      string    `json:"name" cbor:"name"`
	Sequence  uint64    `json:"sequence" cbor:"sequence"`
	Created   int64     `json:"created" cbor:"created"` // Unix milliseconds
	Node      PeerID    `json:"node" cbor:"node"`
	Join      string    `json:"join" cbor:"join"`
	Count     int       `json:"count" cbor:"count"`     // parts
	Size      int64     `json:"size" cbor:"size"`       // bytes of all parts
	Holders   int       `json:"holders" cbor:"holders"` // different nodes that hold some part
	Chunks    []CID     `json:"chunks" cbor:"chunks"`
	Signature []byte    `json:"signature" cbor:"signature"`
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

var datasetName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// ValidDatasetName reports whether s can name a dataset of an owner.
func ValidDatasetName(s string) bool { return datasetName.MatchString(s) }

// ParseDatasetName splits OWNER/NAME, where OWNER is an account ID, the first 6
// or more characters of one, or "me". The error is of kind Invalid.
func ParseDatasetName(s string) (owner, name string, err error) {
	const op = "perigee.ParseDatasetName"
	if len(s) > 256 {
		return "", "", E(op, Invalid, "a dataset's name has at most 256 characters, this has %d", len(s))
	}
	owner, name, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return "", "", E(op, Invalid, "%q is not a dataset; it is written OWNER/NAME, such as me/flights", s)
	case !ValidDatasetName(name):
		return "", "", E(op, Invalid, "%q cannot name a dataset; a name has 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit", name)
	case owner == "me":
	case len(owner) < 6 || !strings.HasPrefix(owner, "z6Mk"):
		return "", "", E(op, Invalid, "%q cannot own a dataset; the owner is an account (z6Mk…), its first 6 or more characters, or me", owner)
	}
	return owner, name, nil
}

// CheckDatasetParts verifies paths, sizes, holders, and that parts are sorted
// by path with no path twice and none below another. Errors are of kind Invalid
// and name the part.
func CheckDatasetParts(parts []DatasetPart) error {
	const op = "perigee.CheckDatasetParts"
	if len(parts) > MaxDatasetParts {
		return E(op, Invalid, "%d parts; a dataset has at most %d", len(parts), MaxDatasetParts)
	}
	paths := make(map[string]struct{}, len(parts))
	peers, accounts := map[PeerID]bool{}, map[AccountID]bool{}
	var total int64
	for i := range parts {
		p := &parts[i]
		if err := p.check(peers, accounts); err != nil {
			return err
		}
		if total += p.Size; total < 0 {
			return E(op, Invalid, "the parts' sizes add up to too much")
		}
		if i > 0 && p.Path <= parts[i-1].Path {
			if p.Path == parts[i-1].Path {
				return E(op, Invalid, "two parts have the path %q", p.Path)
			}
			return E(op, Invalid, "the parts are not sorted by path: %q follows %q", p.Path, parts[i-1].Path)
		}
		paths[p.Path] = struct{}{}
	}
	for i := range parts {
		for at := strings.LastIndexByte(parts[i].Path, '/'); at >= 0; at = strings.LastIndexByte(parts[i].Path[:at], '/') {
			if _, ok := paths[parts[i].Path[:at]]; ok {
				return E(op, Invalid, "%q cannot be a part and the directory of %q", parts[i].Path[:at], parts[i].Path)
			}
		}
	}
	return nil
}

// check verifies one part; the maps remember names that were found good.
func (p *DatasetPart) check(peers map[PeerID]bool, accounts map[AccountID]bool) error {
	const op = "perigee.CheckDatasetParts"
	switch {
	case len(p.Path) > MaxDatasetPath:
		return E(op, Invalid, "a part's path has at most %d bytes, this has %d: %.40q…", MaxDatasetPath, len(p.Path), p.Path)
	case !fs.ValidPath(p.Path) || p.Path == "." || strings.ContainsFunc(p.Path, unicode.IsControl) || strings.Contains(p.Path, `\`):
		return E(op, Invalid, "%q cannot be a part's path; it is relative, with slashes, and without \".\", \"..\", empty elements, backslashes and control characters", p.Path)
	case !p.CID.Defined():
		return E(op, Invalid, "part %q has no CID", p.Path)
	case p.Size < 0 || p.Size > 1<<60:
		return E(op, Invalid, "part %q has size %d", p.Path, p.Size)
	case len(p.Holders) > MaxDatasetHolders:
		return E(op, Invalid, "part %q names %d holders; at most %d are kept", p.Path, len(p.Holders), MaxDatasetHolders)
	}
	for i, h := range p.Holders {
		if i > 0 && h <= p.Holders[i-1] {
			return E(op, Invalid, "the holders of part %q are not sorted or not different", p.Path)
		}
		if !peers[h] {
			if _, err := h.PublicKey(); err != nil {
				return E(op, Invalid, err, "a holder of part %q", p.Path)
			}
			peers[h] = true
		}
	}
	if !accounts[p.By] {
		if _, err := p.By.PublicKey(); err != nil {
			return E(op, Invalid, err, "who brought part %q", p.Path)
		}
		accounts[p.By] = true
	}
	return nil
}

// Split returns the dataset's head, with the dataset's signature, and its
// chunks. The same dataset always splits the same way.
func (d *Dataset) Split() (*DatasetHead, [][]byte, error) {
	h := &DatasetHead{Owner: d.Owner, Name: d.Name, Sequence: d.Sequence, Created: d.Created, Node: d.Node, Join: d.Join,
		Count: len(d.Parts), Signature: d.Signature}
	holders := map[PeerID]struct{}{}
	var chunks [][]byte
	for first, size, i := 0, 0, 0; i < len(d.Parts); i++ {
		p := &d.Parts[i]
		h.Size += p.Size
		for _, peer := range p.Holders {
			holders[peer] = struct{}{}
		}
		size += 160 + len(p.Path) + 56*len(p.Holders) // about its encoded length
		if last := i == len(d.Parts)-1; last || size >= datasetChunkBytes || i-first+1 == datasetChunkParts {
			c, b, err := LinkTo(d.Parts[first : i+1])
			if err != nil {
				return nil, nil, err
			}
			h.Chunks, chunks = append(h.Chunks, c), append(chunks, b)
			first, size = i+1, 0
		}
	}
	h.Holders = len(holders)
	return h, chunks, nil
}

// Check verifies what a head says of itself: name, bounds and signature. Errors
// are of kind Corrupt.
func (h *DatasetHead) Check() error {
	const op = "perigee.DatasetHead"
	switch {
	case !ValidDatasetName(h.Name):
		return E(op, Corrupt, "a dataset with the bad name %.80q", h.Name)
	case h.Join != JoinAny && h.Join != JoinNone:
		return E(op, Corrupt, "dataset %s with the bad join policy %.20q", h.Name, h.Join)
	case h.Sequence == 0 || h.Sequence > 1<<53 || h.Created < 0 || h.Size < 0 || h.Holders < 0:
		return E(op, Corrupt, "dataset %s has a bad sequence, time, size or number of holders", h.Name)
	case h.Count < 1 || h.Count > MaxDatasetParts || len(h.Chunks) < 1 || len(h.Chunks) > maxDatasetChunks || h.Count > len(h.Chunks)*datasetChunkParts:
		return E(op, Corrupt, "dataset %s has a bad number of parts", h.Name)
	case slices.ContainsFunc(h.Chunks, func(c CID) bool { return c.Codec() != CodecDagCBOR }):
		return E(op, Corrupt, "dataset %s links to something else than chunks", h.Name)
	}
	if _, err := h.Node.PublicKey(); err != nil {
		return E(op, Corrupt, err, "dataset %s's node", h.Name)
	}
	return CheckSignature(h)
}

// Newer reports whether h replaces old, which may be nil, of the same dataset.
func (h *DatasetHead) Newer(old *DatasetHead) bool {
	if old == nil || h.Sequence != old.Sequence {
		return old == nil || h.Sequence > old.Sequence
	}
	a, _, errA := LinkTo(h)
	b, _, errB := LinkTo(old)
	return errA == nil && errB == nil && string(a.Cid().Bytes()) > string(b.Cid().Bytes())
}

// DecodeDatasetChunk reads one chunk of a head, which must be the bytes that
// its link names. Errors are of kind Corrupt.
func DecodeDatasetChunk(link CID, b []byte) ([]DatasetPart, error) {
	const op = "perigee.DecodeDatasetChunk"
	if SumCID(CodecDagCBOR, b) != link {
		return nil, E(op, Corrupt, "the bytes are not those of the chunk %s", link)
	}
	var parts []DatasetPart
	if err := Decode(b, &parts); err != nil {
		return nil, err
	}
	if len(parts) < 1 || len(parts) > datasetChunkParts {
		return nil, E(op, Corrupt, "a chunk of %d parts", len(parts))
	}
	return parts, nil
}

// JoinChunks makes the dataset of h and all its parts, in order, and verifies
// that they are those that the head was signed for. Errors are of kind Corrupt.
func (h *DatasetHead) JoinChunks(parts []DatasetPart) (*Dataset, error) {
	const op = "perigee.DatasetHead"
	d := &Dataset{Owner: h.Owner, Name: h.Name, Sequence: h.Sequence, Created: h.Created, Node: h.Node, Join: h.Join,
		Parts: parts, Signature: h.Signature}
	if err := CheckDatasetParts(parts); err != nil {
		return nil, E(op, Corrupt, err, "dataset %s/%s", h.Owner, h.Name)
	}
	var size int64
	for i := range parts {
		size += parts[i].Size
	}
	if len(parts) != h.Count || size != h.Size {
		return nil, E(op, Corrupt, "dataset %s/%s has %d parts of %d bytes where its head says %d of %d",
			h.Owner, h.Name, len(parts), size, h.Count, h.Size)
	}
	return d, nil
}
