//go:build unix && !linux

package wasm

import "syscall"

const sockCloexec = 0

func closeOnExec(fds ...int) {
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
}

// childAttributes puts a worker into its own process group, so that an
// interrupt at the terminal reaches the node only.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
