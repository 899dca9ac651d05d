package data

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/spaolacci/murmur3"

	"github.com/perigee-network/perigee"
)

// DefaultProfile is how trees are built unless AddOptions say otherwise.
const DefaultProfile = "unixfs-v1-2025"

// maxChunk is the largest chunk a chunker may ask for: a wrapped leaf must
// still fit a block. It is Kubo's limit too.
const maxChunk = MaxBlock - 256

// shardThreshold is the estimated size above which a directory is sharded, and
// shardFanout its width, in all profiles.
const (
	shardThreshold = 256 << 10
	shardFanout    = 256
)

// profile determines the CID of a tree: the parameters of IPIP-499
// (https://specs.ipfs.tech/ipips/ipip-0499/).
type profile struct {
	name      string
	version   uint64 // of CIDs
	chunk     int64
	links     int  // children of a file node
	rawLeaves bool // else leaves are wrapped in dag-pb
	sizeBlock bool // directory size is estimated by its encoding, else by names and CIDs
}

var profiles = []profile{
	{"unixfs-v1-2025", 1, 1 << 20, 1024, true, true},
	{"unixfs-v0-2015", 0, 256 << 10, 174, false, false},
	{"legacy-cid-v0", 0, 256 << 10, 174, false, false},
	{"legacy-256k", 0, 256 << 10, 174, false, false},
	{"legacy-cid-v1", 1, 256 << 10, 174, true, false}, // ipfs add --cid-version=1 up to Kubo 0.39
}

// parseProfile finds a profile by name ("" is the default) and applies a
// chunker of the form "size-N" to it ("" keeps the profile's).
func parseProfile(name, chunker string) (profile, error) {
	if name == "" {
		name = DefaultProfile
	}
	i := slices.IndexFunc(profiles, func(p profile) bool { return p.name == name })
	if i < 0 {
		names := make([]string, len(profiles))
		for i, p := range profiles {
			names[i] = p.name
		}
		return profile{}, perigee.E("data.Add", perigee.Invalid, "no profile %q; there are %s", name, strings.Join(names, ", "))
	}
	p := profiles[i]
	if chunker == "" {
		return p, nil
	}
	size, ok := strings.CutPrefix(chunker, "size-")
	n, err := strconv.ParseInt(size, 10, 64)
	if !ok || err != nil || n < 1 || n > maxChunk || size != strconv.FormatInt(n, 10) {
		return profile{}, perigee.E("data.Add", perigee.Invalid, "chunker %q is not size-N with N from 1 to %d", chunker, maxChunk)
	}
	p.chunk = n
	return p, nil
}

// ref is a built DAG: its root, the file bytes below it and the sum of all its
// block lengths, which links to it claim.
type ref struct {
	CID  cid.Cid
	Size uint64
	Cum  uint64
}

// emit receives each block that a builder makes.
type emit func(c cid.Cid, block []byte) error

// digestCID makes the CID of a block from its sha2-256 digest.
func digestCID(version, codec uint64, digest [32]byte) cid.Cid {
	var b [34]byte
	b[0], b[1] = mh.SHA2_256, 32
	copy(b[2:], digest[:])
	if version == 0 {
		return cid.NewCidV0(b[:])
	}
	return cid.NewCidV1(codec, b[:])
}

// leafRef makes the ref of a leaf from the digest of its block.
func (p profile) leafRef(digest [32]byte, payload int) ref {
	if p.rawLeaves {
		return ref{digestCID(1, perigee.CodecRaw, digest), uint64(payload), uint64(payload)}
	}
	head, tail := wrapLeaf(payload)
	return ref{digestCID(p.version, perigee.CodecDagPB, digest), uint64(payload), uint64(len(head) + payload + len(tail))}
}

// leafDigest returns the digest of the leaf block around payload.
func (p profile) leafDigest(payload []byte) [32]byte {
	if p.rawLeaves {
		return sha256.Sum256(payload)
	}
	head, tail := wrapLeaf(len(payload))
	h := sha256.New()
	h.Write(head)
	h.Write(payload)
	h.Write(tail)
	var d [32]byte
	h.Sum(d[:0])
	return d
}

// put emits a dag-pb node and returns its CID and its own length plus those of
// its links.
func (p profile) put(n node, out emit) (cid.Cid, uint64, error) {
	b := encodeNode(n)
	c := digestCID(p.version, perigee.CodecDagPB, sha256.Sum256(b))
	cum := uint64(len(b))
	for _, l := range n.Links {
		cum += l.Size
	}
	return c, cum, out(c, b)
}

// file builds the balanced DAG over a file's leaves, of which there is at least
// one, and emits its inner nodes. Filling a balanced tree from the left is the
// same as grouping each level until one node remains.
func (p profile) file(level []ref, out emit) (ref, error) {
	for len(level) > 1 {
		next := make([]ref, 0, (len(level)+p.links-1)/p.links)
		for group := range slices.Chunk(level, p.links) {
			n := node{Links: make([]link, len(group))}
			u := unixfs{Type: ufsFile, HasSize: true, BlockSizes: make([]uint64, len(group))}
			for i, r := range group {
				n.Links[i] = link{CID: r.CID, Size: r.Cum}
				u.BlockSizes[i] = r.Size
				u.FileSize += r.Size
			}
			n.Data = encodeUnixFS(u)
			c, cum, err := p.put(n, out)
			if err != nil {
				return ref{}, err
			}
			next = append(next, ref{c, u.FileSize, cum})
		}
		level = next
	}
	return level[0], nil
}

// symlink builds a symbolic link.
func (p profile) symlink(target string, out emit) (ref, error) {
	if len(target) == 0 || len(target) > 4096 {
		return ref{}, perigee.E("data.Add", perigee.Invalid, "a symlink's target of %d bytes; 1 to 4096 are allowed", len(target))
	}
	c, cum, err := p.put(node{Data: encodeUnixFS(unixfs{Type: ufsSymlink, Data: []byte(target)})}, out)
	return ref{c, 0, cum}, err
}

// dirEntry is a named child of a directory under construction.
type dirEntry struct {
	name string
	ref
}

// checkName refuses what cannot be one element of a path.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return perigee.E("data.Add", perigee.Invalid, "%q cannot be the name of a file", name)
	}
	return nil
}

// dir builds a directory, sharded when it is large, and emits its nodes. It
// sorts entries. Size is the sum of the entries'.
func (p profile) dir(entries []dirEntry, out emit) (ref, error) {
	slices.SortFunc(entries, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	var size uint64
	data := encodeUnixFS(unixfs{Type: ufsDirectory})
	est := 0
	if p.sizeBlock {
		est = 2 + len(data)
	}
	n := node{Data: data, Links: make([]link, len(entries))}
	for i, e := range entries {
		if i > 0 && entries[i-1].name == e.name {
			return ref{}, perigee.E("data.Add", perigee.Invalid, "two entries named %q in one directory", e.name)
		}
		if err := checkName(e.name); err != nil {
			return ref{}, err
		}
		size += e.Size
		l := link{e.name, e.CID, e.Cum}
		n.Links[i] = l
		if p.sizeBlock {
			est += linkLen(l)
		} else {
			est += len(l.Name) + l.CID.ByteLen()
		}
	}
	if est > shardThreshold {
		c, cum, err := p.shard(n.Links, 0, out)
		return ref{c, size, cum}, err
	}
	c, cum, err := p.put(n, out)
	return ref{c, size, cum}, err
}

// shard builds one node of a hash array mapped trie over links, which share the
// first depth bytes of their names' hashes.
func (p profile) shard(links []link, depth int, out emit) (cid.Cid, uint64, error) {
	if depth >= 8 {
		return cid.Undef, 0, perigee.E("data.Add", perigee.Unsupported, "the names %q and %q collide", links[0].Name, links[1].Name)
	}
	var buckets [shardFanout][]link
	for _, l := range links {
		var h [8]byte
		binary.BigEndian.PutUint64(h[:], murmur3.Sum64([]byte(l.Name)))
		buckets[h[depth]] = append(buckets[h[depth]], l)
	}
	var bits [shardFanout / 8]byte
	n := node{}
	for i, bucket := range buckets {
		if len(bucket) == 0 {
			continue
		}
		bits[len(bits)-1-i/8] |= 1 << (i % 8)
		prefix := fmt.Sprintf("%02X", i)
		if len(bucket) == 1 {
			l := bucket[0]
			n.Links = append(n.Links, link{prefix + l.Name, l.CID, l.Size})
			continue
		}
		c, cum, err := p.shard(bucket, depth+1, out)
		if err != nil {
			return cid.Undef, 0, err
		}
		n.Links = append(n.Links, link{prefix, c, cum})
	}
	first := slices.IndexFunc(bits[:], func(b byte) bool { return b != 0 })
	if first < 0 {
		first = len(bits)
	}
	n.Data = encodeUnixFS(unixfs{Type: ufsHAMT, Data: bits[first:], HashType: hamtMurmur3, Fanout: shardFanout})
	return p.put(n, out)
}
