package data

import (
	"encoding/binary"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
)

// This file reads and writes the two formats of tree metadata: dag-pb
// (https://ipld.io/specs/codecs/dag-pb/spec/) and, inside it, UnixFS
// (https://specs.ipfs.tech/unixfs/). The readers take hostile bytes.

// MaxBlock bounds a block, in bytes: the largest that bitswap carries.
const MaxBlock = 2 << 20

// maxLinks bounds the links of one node. A link takes at least 40 bytes.
const maxLinks = MaxBlock / 38

// link is a dag-pb link. Size is the claimed size of everything below it.
type link struct {
	Name string
	CID  cid.Cid
	Size uint64
}

// node is a decoded dag-pb block.
type node struct {
	Links []link
	Data  []byte
}

// The UnixFS node types.
const (
	ufsRaw       = 0
	ufsDirectory = 1
	ufsFile      = 2
	ufsSymlink   = 4
	ufsHAMT      = 5
)

// hamtMurmur3 is the multicodec of the hash that orders sharded directories.
const hamtMurmur3 = 0x22

// unixfs is the payload of a dag-pb node. Modes and times are ignored.
type unixfs struct {
	Type       uint64
	Data       []byte
	HasSize    bool
	FileSize   uint64
	BlockSizes []uint64
	HashType   uint64
	Fanout     uint64
}

func putTag(b []byte, field, wire int) []byte { return append(b, byte(field<<3|wire)) }

func putBytes(b []byte, field int, v []byte) []byte {
	b = putTag(b, field, 2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func putUint(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(putTag(b, field, 0), v)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// linkBodyLen returns the encoded length of a PBLink message.
func linkBodyLen(l link) int {
	c, n := l.CID.ByteLen(), len(l.Name)
	return 1 + uvarintLen(uint64(c)) + c + 1 + uvarintLen(uint64(n)) + n + 1 + uvarintLen(l.Size)
}

// linkLen returns how many bytes a link adds to its node.
func linkLen(l link) int {
	n := linkBodyLen(l)
	return 1 + uvarintLen(uint64(n)) + n
}

// encodeNode returns the canonical dag-pb of n: links in the order given, which
// the caller sorts, then data.
func encodeNode(n node) []byte {
	size := len(n.Data) + 8
	for _, l := range n.Links {
		size += linkLen(l)
	}
	b := make([]byte, 0, size)
	for _, l := range n.Links {
		b = putTag(b, 2, 2)
		b = binary.AppendUvarint(b, uint64(linkBodyLen(l)))
		b = putBytes(b, 1, l.CID.Bytes())
		b = putBytes(b, 2, []byte(l.Name))
		b = putUint(b, 3, l.Size)
	}
	if n.Data != nil {
		b = putBytes(b, 1, n.Data)
	}
	return b
}

// encodeUnixFS returns the UnixFS message of u.
func encodeUnixFS(u unixfs) []byte {
	b := make([]byte, 0, len(u.Data)+16+9*len(u.BlockSizes))
	b = putUint(b, 1, u.Type)
	if len(u.Data) > 0 {
		b = putBytes(b, 2, u.Data)
	}
	if u.HasSize {
		b = putUint(b, 3, u.FileSize)
	}
	for _, s := range u.BlockSizes {
		b = putUint(b, 4, s)
	}
	if u.Type == ufsHAMT {
		b = putUint(b, 5, u.HashType)
		b = putUint(b, 6, u.Fanout)
	}
	return b
}

// wrapLeaf returns the dag-pb leaf around payload that profiles without raw
// leaves use, as bytes before and after the payload.
func wrapLeaf(payload int) (head, tail []byte) {
	inner := 2
	if payload > 0 {
		inner += 1 + uvarintLen(uint64(payload)) + payload
	}
	inner += 1 + uvarintLen(uint64(payload))
	head = putTag(head, 1, 2)
	head = binary.AppendUvarint(head, uint64(inner))
	head = putUint(head, 1, ufsFile)
	if payload > 0 {
		head = putTag(head, 2, 2)
		head = binary.AppendUvarint(head, uint64(payload))
	}
	return head, putUint(nil, 3, uint64(payload))
}

func errFormat(format string, args ...any) error {
	return perigee.E("data.decode", perigee.Corrupt, append([]any{format}, args...)...)
}

// field is one protobuf field: num is its value when wire is 0, data when 2.
type field struct {
	id, wire int
	num      uint64
	data     []byte
}

// nextField reads one protobuf field of b and returns the rest. Groups and
// unknown wire types are refused.
func nextField(b []byte) (field, []byte, error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<20 {
		return field{}, nil, errFormat("malformed protobuf tag")
	}
	f, b := field{id: int(tag >> 3), wire: int(tag & 7)}, b[n:]
	switch f.wire {
	case 0:
		if f.num, n = binary.Uvarint(b); n <= 0 {
			return field{}, nil, errFormat("malformed protobuf integer")
		}
		return f, b[n:], nil
	case 2:
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			return field{}, nil, errFormat("protobuf field %d runs past its end", f.id)
		}
		f.data = b[n : n+int(l)]
		return f, b[n+int(l):], nil
	case 1, 5:
		w := 8
		if f.wire == 5 {
			w = 4
		}
		if len(b) < w {
			return field{}, nil, errFormat("protobuf field %d runs past its end", f.id)
		}
		return f, b[w:], nil
	}
	return field{}, nil, errFormat("protobuf wire type %d", f.wire)
}

// decodeNode reads a dag-pb block. Strings and data alias b.
func decodeNode(b []byte) (node, error) {
	var n node
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return node{}, err
		}
		b = rest
		switch {
		case f.wire == 2 && f.id == 1:
			if n.Data != nil {
				return node{}, errFormat("a dag-pb node with data twice")
			}
			n.Data = f.data
			if n.Data == nil {
				n.Data = []byte{}
			}
		case f.wire == 2 && f.id == 2:
			l, err := decodeLink(f.data)
			if err != nil {
				return node{}, err
			}
			if len(n.Links) >= maxLinks {
				return node{}, errFormat("a dag-pb node with more than %d links", maxLinks)
			}
			n.Links = append(n.Links, l)
		default:
			return node{}, errFormat("a dag-pb node with field %d of type %d", f.id, f.wire)
		}
	}
	return n, nil
}

func decodeLink(b []byte) (link, error) {
	var l link
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return link{}, err
		}
		b = rest
		switch {
		case f.id == 1 && f.wire == 2 && !l.CID.Defined():
			if len(f.data) > 256 {
				return link{}, errFormat("a CID of %d bytes", len(f.data))
			}
			if l.CID, err = cid.Cast(f.data); err != nil {
				return link{}, perigee.E("data.decode", perigee.Corrupt, err, "malformed link")
			}
		case f.id == 2 && f.wire == 2:
			l.Name = string(f.data)
		case f.id == 3 && f.wire == 0:
			l.Size = f.num
		default:
			return link{}, errFormat("a dag-pb link with field %d of type %d", f.id, f.wire)
		}
	}
	if !l.CID.Defined() {
		return link{}, errFormat("a dag-pb link without a CID")
	}
	return l, nil
}

// decodeUnixFS reads the UnixFS message inside a dag-pb node.
func decodeUnixFS(b []byte) (unixfs, error) {
	var u unixfs
	seen := false
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return unixfs{}, err
		}
		b = rest
		switch {
		case f.id == 1 && f.wire == 0:
			u.Type, seen = f.num, true
		case f.id == 2 && f.wire == 2:
			u.Data = f.data
		case f.id == 3 && f.wire == 0:
			u.FileSize, u.HasSize = f.num, true
		case f.id == 4 && f.wire == 0:
			u.BlockSizes = append(u.BlockSizes, f.num)
		case f.id == 4 && f.wire == 2: // packed
			for p := f.data; len(p) > 0; {
				v, n := binary.Uvarint(p)
				if n <= 0 {
					return unixfs{}, errFormat("malformed block sizes")
				}
				u.BlockSizes, p = append(u.BlockSizes, v), p[n:]
			}
		case f.id == 5 && f.wire == 0:
			u.HashType = f.num
		case f.id == 6 && f.wire == 0:
			u.Fanout = f.num
		}
		if len(u.BlockSizes) > maxLinks {
			return unixfs{}, errFormat("a file node with more than %d block sizes", maxLinks)
		}
	}
	if !seen {
		return unixfs{}, errFormat("a dag-pb node that is not UnixFS")
	}
	return u, nil
}

// ufsNode is a decoded and checked metadata block (or dag-pb leaf).
type ufsNode struct {
	unixfs
	Links []link
}

// maxSize bounds any claimed file size, so that sums cannot overflow.
const maxSize = 1 << 60

// parseUnixFS decodes a dag-pb block into a UnixFS node and checks that what it
// claims is consistent: a file's block sizes match its links and its size, a
// shard's fanout is a power of two.
func parseUnixFS(b []byte) (ufsNode, error) {
	n, err := decodeNode(b)
	if err != nil {
		return ufsNode{}, err
	}
	u, err := decodeUnixFS(n.Data)
	if err != nil {
		return ufsNode{}, err
	}
	switch u.Type {
	case ufsRaw, ufsFile:
		if len(n.Links) != len(u.BlockSizes) {
			return ufsNode{}, errFormat("a file node with %d links and %d block sizes", len(n.Links), len(u.BlockSizes))
		}
		total := uint64(len(u.Data))
		for _, s := range u.BlockSizes {
			if s > maxSize || total+s > maxSize {
				return ufsNode{}, errFormat("a file node of impossible size")
			}
			total += s
		}
		if u.HasSize && u.FileSize != total {
			return ufsNode{}, errFormat("a file node that claims %d bytes and has %d", u.FileSize, total)
		}
		u.FileSize = total
	case ufsHAMT:
		if u.HashType != hamtMurmur3 || u.Fanout < 8 || u.Fanout > 1<<16 || u.Fanout&(u.Fanout-1) != 0 {
			return ufsNode{}, errFormat("a sharded directory with hash 0x%x and fanout %d", u.HashType, u.Fanout)
		}
	case ufsDirectory:
	case ufsSymlink:
		if len(u.Data) > 4096 {
			return ufsNode{}, errFormat("a symlink of %d bytes", len(u.Data))
		}
	default:
		return ufsNode{}, perigee.E("data.decode", perigee.Unsupported, "UnixFS nodes of type %d are not supported", u.Type)
	}
	return ufsNode{u, n.Links}, nil
}

// shardPrefix returns how many hex digits lead the link names of a shard.
func shardPrefix(fanout uint64) int {
	n := 0
	for v := fanout - 1; v > 0; v >>= 4 {
		n++
	}
	return n
}
