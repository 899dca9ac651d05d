package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// serveFlags change a node's configuration for one run.
type serveFlags struct {
	listen    []string
	apiListen string
	peers     []string
	bootstrap []string
	pskFile   string
	relays    []string
	relay     bool
	mdns      bool
	dht       string
	region    string
	provide   string
	modules   string
	logLevel  string
	logJSON   bool
}

func newServeCmd(a *app) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node until it is interrupted",
		Long: `Run a node: it asks the network for work, gives resources to it, and serves the
API that the other commands use. Flags take precedence over the configuration
file in the node's home, which is made if there is none.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runServe(cmd, a, f) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.listen, "listen", nil, "multiaddr to listen on, such as /ip4/0.0.0.0/tcp/4001; may be repeated")
	fl.StringVar(&f.apiListen, "api-listen", "", "address of the HTTP API; default 127.0.0.1:0, any free port")
	fl.StringSliceVar(&f.peers, "peer", nil, "multiaddr of a peer to stay connected to; may be repeated")
	fl.StringSliceVar(&f.bootstrap, "bootstrap", nil, "multiaddr of a peer to find others through; may be repeated")
	fl.StringVar(&f.pskFile, "private-key-file", "", "pre-shared key of a private network")
	fl.StringSliceVar(&f.relays, "relay-peer", nil, "multiaddr of a relay to be reachable through; may be repeated")
	fl.BoolVar(&f.relay, "relay", false, "relay for nodes that cannot be reached themselves")
	fl.BoolVar(&f.mdns, "mdns", true, "find peers on the local network")
	fl.StringVar(&f.dht, "dht", "", "part in the distributed hash table: auto, server, client or off")
	fl.StringVar(&f.region, "region", "", "where this node is, such as EU/DE")
	fl.StringVar(&f.provide, "provide", "", "what it gives, such as cpu=2,memory=4GiB,disk=20GiB, or off")
	fl.StringVar(&f.modules, "modules", "", "directory of compiled modules, which nodes of one user may share")
	fl.StringVar(&f.logLevel, "log-level", "warn", "debug, info, warn or error")
	fl.BoolVar(&f.logJSON, "log-json", false, "log lines of JSON")
	return c
}

// logger makes the node's log as the flags say.
func (f *serveFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usagef("--log-level is debug, info, warn or error, not %q", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	if f.logJSON {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

func (f *serveFlags) check() error {
	switch f.dht {
	case "", "auto", "server", "client", "off":
	default:
		return usagef("--dht is auto, server, client or off, not %q", f.dht)
	}
	if f.region != "" && !perigee.ValidRegion(f.region) {
		return usagef("--region %q is not a region such as EU or EU/DE", f.region)
	}
	return nil
}

func runServe(cmd *cobra.Command, a *app, f serveFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	log, err := f.logger(a.errOut)
	if err != nil {
		return err
	}
	give, err := parseProvide(f.provide)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	n, err := startServing(ctx, a.home, f, cmd.Flags().Changed, give, log)
	if err != nil {
		return err
	}
	if err := a.announce(cmd, n); err != nil {
		_ = n.Close()
		return err
	}
	select {
	case <-ctx.Done():
		a.note("stopping; jobs go on when the node is started again")
		return n.Close()
	case <-n.Done():
		return n.Close()
	}
}

// announce tells where the node can be reached.
func (a *app) announce(cmd *cobra.Command, n runningNode) error {
	c, err := client.FromHome(a.home)
	if err != nil {
		return err
	}
	defer c.Close()
	st, err := c.Status(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(st, func(w io.Writer) {
		fmt.Fprintf(w, "node %s of account %s\n", st.PeerID, st.Account)
		for _, addr := range st.Addrs {
			fmt.Fprintln(w, "listening on", addr)
		}
		fmt.Fprintln(w, "API at", st.API)
		fmt.Fprintln(w, "roles:", strings.Join(st.Roles, ", "))
	})
}

// runningNode is a node in this process.
type runningNode interface {
	// Done is closed when the node stopped by itself; Close says why.
	Done() <-chan struct{}
	Close() error
}
