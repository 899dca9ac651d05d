//go:build !unix

package localnet

import (
	"os"
	"os/exec"
)

func detach(*exec.Cmd) {}

func interrupt(p *os.Process) { _ = p.Kill() } // fails only when it is gone
