package wasm

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const sockCloexec = unix.SOCK_CLOEXEC

func closeOnExec(...int) {} // sockCloexec did it without a race

// childAttributes puts a worker into its own process group, so that an
// interrupt at the terminal reaches the node only, and has the kernel kill it
// when the thread that started it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
