package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// app is what all commands share: where they read and write, and which node
// they talk to.
type app struct {
	in          io.Reader
	out, errOut io.Writer
	outTTY      bool // out is a terminal
	errTTY      bool // errOut is a terminal

	home string
	api  string
	json bool
}

func newApp(in io.Reader, out, errOut io.Writer) *app {
	return &app{in: in, out: out, errOut: errOut, outTTY: isTerminal(out), errTTY: isTerminal(errOut)}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// untilInterrupted returns a context that ends at the first Ctrl-C or SIGTERM.
// A second one ends the process at once.
func (a *app) untilInterrupted() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			select {
			case <-done:
				return
			case <-signals:
			}
			if !first {
				fmt.Fprintln(a.errOut, "perigee: stopped")
				os.Exit(exitFailed)
			}
			cancel(perigee.E("perigee", perigee.Cancelled, "interrupted"))
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// defaultHome is the node's home when neither flag nor environment names one.
func defaultHome() string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return ".perigee"
	}
	return filepath.Join(dir, ".perigee")
}

// connect returns a client of the node that flags and environment name.
func (a *app) connect() (*client.Client, error) {
	if a.api == "" {
		return client.FromHome(a.home)
	}
	token := os.Getenv("PERIGEE_TOKEN")
	if token == "" { // a node of this machine, asked for by address
		if b, err := os.ReadFile(filepath.Join(a.home, client.TokenFile)); err == nil {
			token = strings.TrimSpace(string(b))
		}
	}
	return client.New(client.Config{URL: a.api, Token: token})
}

// note tells a person something beside a command's output.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.errOut, format+"\n", args...)
}
