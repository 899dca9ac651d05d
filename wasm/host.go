package wasm

import (
	"fmt"
	"runtime/debug"

	"github.com/bytecodealliance/wasmtime-go/v44"
	"github.com/perigee-network/perigee"
)

// hostModule is the name of the module that guests import.
const hostModule = "wasi_snapshot_preview1"

// arguments are those of one call; a 32-bit one is zero-extended.
type arguments [9]uint64

func (a *arguments) u32(i int) uint32 { return uint32(a[i]) }

// hostFunction is one function that guests may import. Params has one letter
// for each parameter, 'i' for i32 and 'I' for i64; all but proc_exit return an
// errno as i32.
type hostFunction struct {
	name   string
	params string
	call   func(x *execution, a *arguments) errno
}

// hostFunctions is WASI preview 1, after
// https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md.
var hostFunctions = []hostFunction{
	{"args_get", "ii", argsGet},
	{"args_sizes_get", "ii", argsSizesGet},
	{"environ_get", "ii", environGet},
	{"environ_sizes_get", "ii", environSizesGet},
	{"clock_res_get", "ii", clockResGet},
	{"clock_time_get", "iIi", clockTimeGet},
	{"fd_advise", "iIIi", fdAdvise},
	{"fd_allocate", "iII", fdAllocate},
	{"fd_close", "i", fdClose},
	{"fd_datasync", "i", fdSync},
	{"fd_fdstat_get", "ii", fdFdstatGet},
	{"fd_fdstat_set_flags", "ii", fdFdstatSetFlags},
	{"fd_fdstat_set_rights", "iII", fdFdstatSetRights},
	{"fd_filestat_get", "ii", fdFilestatGet},
	{"fd_filestat_set_size", "iI", fdFilestatSetSize},
	{"fd_filestat_set_times", "iIIi", fdFilestatSetTimes},
	{"fd_pread", "iiiIi", fdPread},
	{"fd_prestat_get", "ii", fdPrestatGet},
	{"fd_prestat_dir_name", "iii", fdPrestatDirName},
	{"fd_pwrite", "iiiIi", fdPwrite},
	{"fd_read", "iiii", fdRead},
	{"fd_readdir", "iiiIi", fdReaddir},
	{"fd_renumber", "ii", fdRenumber},
	{"fd_seek", "iIii", fdSeek},
	{"fd_sync", "i", fdSync},
	{"fd_tell", "ii", fdTell},
	{"fd_write", "iiii", fdWrite},
	{"path_create_directory", "iii", pathCreateDirectory},
	{"path_filestat_get", "iiiii", pathFilestatGet},
	{"path_filestat_set_times", "iiiiIIi", pathFilestatSetTimes},
	{"path_link", "iiiiiii", pathLink},
	{"path_open", "iiiiiIIii", pathOpen},
	{"path_readlink", "iiiiii", pathReadlink},
	{"path_remove_directory", "iii", pathRemoveDirectory},
	{"path_rename", "iiiiii", pathRename},
	{"path_symlink", "iiiii", pathSymlink},
	{"path_unlink_file", "iii", pathUnlinkFile},
	{"poll_oneoff", "iiii", pollOneoff},
	{procExit, "i", nil},
	{"proc_raise", "i", notSupported},
	{"sched_yield", "", schedYield},
	{"random_get", "ii", randomGet},
	{"sock_accept", "iii", notSupported},
	{"sock_recv", "iiiiii", notSupported},
	{"sock_send", "iiiii", notSupported},
	{"sock_shutdown", "ii", notSupported},
}

const procExit = "proc_exit"

// notSupported answers for what a guest has no use for: there is no network and
// there are no signals.
func notSupported(*execution, *arguments) errno { return eNOTSUP }

// typeOf returns the parameters and results of a host function in the letters of
// hostFunction.
func (f *hostFunction) results() string {
	if f.call == nil {
		return ""
	}
	return "i"
}

// call runs a host function for the guest: charge, work, check.
func (x *execution) call(f *hostFunction, a *arguments) (e errno) {
	defer func() {
		if r := recover(); r != nil {
			x.halt(perigee.Internal, "the WASI host failed in %s: %v", f.name, r)
			println("panic in", f.name, fmt.Sprint(r), string(debug.Stack()))
			e = eIO
		}
	}()
	x.charge(HostCallFuel)
	if x.stopped() {
		return eIO
	}
	if f.call == nil {
		x.exited, x.exitCode = true, a.u32(0)
		return ok
	}
	return f.call(x, a)
}

// errnoResults are the results of host functions, made once.
var errnoResults = func() (r [errnoCount][]wasmtime.Val) {
	for i := range r {
		r[i] = []wasmtime.Val{wasmtime.ValI32(int32(i))}
	}
	return r
}()

// link defines the host functions in a linker for the execution that current
// points to at the time of a call.
func link(l *wasmtime.Linker, current **execution, store **guestStore) error {
	kinds := map[rune]wasmtime.ValKind{'i': wasmtime.KindI32, 'I': wasmtime.KindI64}
	types := func(s string) (t []*wasmtime.ValType) {
		for _, c := range s {
			t = append(t, wasmtime.NewValType(kinds[c]))
		}
		return t
	}
	for i := range hostFunctions {
		f := &hostFunctions[i]
		none := []wasmtime.Val{}
		var a arguments // one guest runs at a time
		err := l.FuncNew(hostModule, f.name, wasmtime.NewFuncType(types(f.params), types(f.results())),
			func(c *wasmtime.Caller, vals []wasmtime.Val) ([]wasmtime.Val, *wasmtime.Trap) {
				x := *current
				(*store).caller(c)
				for i := range vals {
					if f.params[i] == 'i' {
						a[i] = uint64(uint32(vals[i].I32()))
					} else {
						a[i] = uint64(vals[i].I64())
					}
				}
				e := x.call(f, &a)
				if x.stopped() {
					return nil, wasmtime.NewTrap("stopped by the host")
				}
				if f.call == nil {
					return none, nil
				}
				return errnoResults[e], nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}
