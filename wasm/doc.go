// Package wasm runs WebAssembly programs deterministically: the same module,
// arguments, environment, seed and inputs give the same output bytes, exit code
// and fuel on every machine with the same [Class].
//
// A guest is a WASI preview 1 command (a module that exports _start). An
// [Engine] compiles modules once into a cache and runs guests in a pool of
// worker processes: children of this process that hold no keys, no network and
// no files but the descriptors they are handed, and that are confined further by
// Landlock, seccomp and resource limits where the kernel has them. Wall-clock
// limits and cancellation kill the worker, so nothing a guest does can outlive
// them; a worker that dies takes one execution with it.
//
// A worker serves one guest after the other. Between those stand the engine's own
// walls, a store and a memory for each, and nothing of an execution is kept but
// compiled modules and idle buffers.
//
// The package has two sides. The parent side (engine.go, pool.go, process.go,
// compile.go, session.go, outcome.go) lives in the node and treats whatever a
// worker says as hostile. The worker side (worker.go, execution.go and the host_*.go
// files, which are the 46 functions of wasi_snapshot_preview1 over a virtual
// file system in tree.go, input.go and scratch.go) treats whatever the guest
// says as hostile. frame.go and message.go are what they speak.
//
// Input files are content-addressed: each extent is read whole and its hash
// checked before a guest sees one byte of it, so that a file that changes under
// a running guest fails that execution with perigee.Corrupt.
package wasm

import "runtime"

// Version names the engine and the behaviour of the WASI host. It is part of
// every job key: any change that a guest could observe, in results or in fuel,
// must change it.
const Version = "wasmtime-44.0.0/perigee-1"

// Class is the class of machines whose results are compared byte for byte: the
// engine version and the architecture, because WebAssembly leaves the bits of
// a NaN to the hardware.
func Class() string { return Version + "/" + runtime.GOARCH }

// What a guest can observe. All of these are part of what Version stands for.
const (
	// EpochSeconds is the virtual time of a guest's start, and every file's
	// timestamp: 2020-01-01T00:00:00Z.
	EpochSeconds = 1577836800
	// HostCallFuel is charged for each call of a host function.
	HostCallFuel = 1000
	// HostBytesPerFuel is how many bytes a host function moves for one fuel.
	HostBytesPerFuel = 16
	// StackLimit bounds the WebAssembly call stack, in bytes.
	StackLimit = 2 << 20
	// MaxOpenFiles bounds the guest's file descriptors; more is EMFILE.
	MaxOpenFiles = 1024
	// MaxPath bounds the bytes of a path the guest passes; more is ENAMETOOLONG.
	MaxPath = 4096

	// PathFuel is charged for a function that takes a path, besides
	// HostCallFuel: finding a file may mean asking the node.
	PathFuel = 9000

	maxTableElements = 4 << 20
	maxIovecs        = 1024
	maxSubscriptions = 4096
	maxSymlinks      = 40
)

// Bounds that no guest can observe.
const (
	maxStrings    = 1 << 20   // bytes of arguments and environment
	maxModule     = 256 << 20 // bytes of a module's binary
	maxExtent     = 4 << 20   // bytes of one verified run; IPFS blocks have at most 2 MiB
	maxExtents    = 4 << 20   // runs of one file
	scratchMemory = 32 << 20  // bytes of scratch files kept in a worker's memory before they go to disk
	inlineEntry   = 64 << 10  // bytes of an output file that travels inside a result
	inlineTotal   = 1 << 20   // of all such files together
	maxLiveChunk  = 64 << 10  // bytes of stdout or stderr in one live frame
	modulesKept   = 16        // deserialised modules a worker keeps
)
