//go:build unix

package localnet

import (
	"os"
	"os/exec"
	"syscall"
)

// detach puts the node into a process group of its own, so that Ctrl-C on the
// terminal reaches only this process, which then ends the nodes in order.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func interrupt(p *os.Process) { _ = p.Signal(syscall.SIGTERM) } // fails only when it is gone
