package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/perigee-network/perigee"
)

// initFlags are what `perigee init` writes into the node's configuration.
type initFlags struct {
	network string
	region  string
	provide string
}

// provided is what a node gives to the network.
type provided struct {
	Off    bool // nothing: it only asks
	CPU    int
	Memory perigee.Size
	Disk   perigee.Size
}

// networkFile describes a network to become part of.
type networkFile struct {
	Name           string   `yaml:"name"`
	Peers          []string `yaml:"peers"`
	PrivateKeyFile string   `yaml:"private_key_file"`
}

func newInitCmd(a *app) *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a node's home: keys and configuration",
		Long: `Make a node's home directory with its keys and an annotated configuration file.
What exists is kept and told. run, serve and data add do this by themselves when
there is no home yet.`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error { return runInit(a, f) },
	}
	c.Flags().StringVar(&f.network, "network", "dev", "dev, or a file that names a network's peers and its private key file")
	c.Flags().StringVar(&f.region, "region", "", "where this node is, such as EU/DE")
	c.Flags().StringVar(&f.provide, "provide", "", "what it gives, such as cpu=2,memory=4GiB,disk=20GiB, or off; default part of this machine")
	return c
}

func runInit(a *app, f initFlags) error {
	give, err := parseProvide(f.provide)
	if err != nil {
		return err
	}
	if f.region != "" && !perigee.ValidRegion(f.region) {
		return usagef("--region %q is not a region such as EU or EU/DE", f.region)
	}
	network, err := readNetwork(f.network)
	if err != nil {
		return err
	}
	report, err := initHome(a.home, f.region, give, network)
	if err != nil {
		return err
	}
	return a.show(report, func(w io.Writer) {
		if report.Existed {
			fmt.Fprintf(w, "%s exists already; its keys and configuration are kept\n", report.Home)
		} else {
			fmt.Fprintln(w, "made", report.Home)
		}
		pairs(w, "peer ID", string(report.PeerID), "account", string(report.Account), "configuration", report.Config)
		if !report.Existed {
			fmt.Fprintln(w, "start the node with: perigee serve")
		}
	})
}

// initReport is what `perigee init` tells.
type initReport struct {
	Home    string            `json:"home"`
	Existed bool              `json:"existed"`
	PeerID  perigee.PeerID    `json:"peer_id"`
	Account perigee.AccountID `json:"account"`
	Config  string            `json:"config"`
}

// parseProvide reads cpu=2,memory=4GiB,disk=20GiB or off.
func parseProvide(text string) (provided, error) {
	var p provided
	switch text {
	case "":
		return p, nil
	case "off":
		p.Off = true
		return p, nil
	}
	for _, item := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		var err error
		switch key {
		case "cpu":
			if p.CPU, err = strconv.Atoi(value); err == nil && p.CPU < 1 {
				err = perigee.Invalid
			}
		case "memory":
			p.Memory, err = perigee.ParseSize(value)
		case "disk":
			p.Disk, err = perigee.ParseSize(value)
		default:
			return p, usagef("--provide knows cpu, memory and disk, not %q; an example is cpu=2,memory=4GiB,disk=20GiB", key)
		}
		if err != nil {
			return p, usagef("--provide: %s=%s is not right; an example is cpu=2,memory=4GiB,disk=20GiB", key, value)
		}
	}
	return p, nil
}

// readNetwork reads the description of a network; "dev" is the one without any.
func readNetwork(name string) (networkFile, error) {
	var n networkFile
	if name == "" || name == "dev" {
		return n, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return n, perigee.E("init", perigee.NotFound, "--network %s: there is no such file, and the only network known by name is dev", name)
	}
	defer f.Close()
	dec := yaml.NewDecoder(io.LimitReader(f, 1<<20))
	dec.KnownFields(true)
	if err := dec.Decode(&n); err != nil {
		return n, perigee.E("init", perigee.Invalid, err, "--network %s: it holds name, peers and private_key_file", name)
	}
	if n.PrivateKeyFile != "" && !filepath.IsAbs(n.PrivateKeyFile) {
		n.PrivateKeyFile = filepath.Join(filepath.Dir(absolute(name)), n.PrivateKeyFile)
	}
	return n, nil
}
