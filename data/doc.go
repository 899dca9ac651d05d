// Package data keeps content-addressed data on one node and moves it between
// nodes.
//
// Its terms: a block is at most [MaxBlock] bytes named by its CID. A leaf is a
// block of file content; metadata are the blocks that only link to others
// (directories, the inner nodes of large files). A root is the CID of a whole
// file or directory, a tree. A holder is a node that has a CID's blocks.
//
// A block lies in one or more places: in a pack (an append-only file of this
// package), inline in its index row (tiny blocks), or in place, as a run of a
// user's own file that was indexed and not copied. The index, the pins and the
// roots are rows of a db.DB. Whatever a block is read from, its hash is checked
// before it is used, so that a changed file is refused by name and never served
// wrong.
//
// A pin keeps a tree under an owner's name, a hold keeps it while something
// uses it; [Store.GC] removes all blocks that neither a pin, nor a hold, nor an
// add or fetch in progress reaches.
//
// Trees are built exactly as Kubo builds them (see profile.go), and move
// between Perigee nodes over the protocol [Protocol], one stream of verified
// blocks, and to and from any other IPFS node over bitswap. This is the only
// package that touches IPFS libraries.
package data
