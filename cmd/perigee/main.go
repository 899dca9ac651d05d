// Command perigee is Perigee: it runs a node, and it asks a node for what its
// user wants. Each command is a file of this directory; all of them but serve,
// init and demo speak only to the HTTP API of a node, through package client.
package main

import (
	"io"
	"os"

	"github.com/perigee-network/perigee/wasm"
)

func main() {
	// A worker runs one guest program after another and is started often: it
	// must not pay for a command line that it does not have.
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(wasm.WorkerMain())
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	a := newApp(in, out, errOut)
	ctx, stop := a.untilInterrupted()
	defer stop()
	root := newRootCmd(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.report(err)
	return exitCode(err)
}
