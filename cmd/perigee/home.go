package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/perigee-network/perigee/node"
)

// startEmbedded starts a node that lives as long as the command.
func startEmbedded(ctx context.Context, home string, log *slog.Logger) (runningNode, error) {
	cfg, err := node.LoadConfig(home)
	if err != nil {
		return nil, err
	}
	cfg.Embedded, cfg.Log = true, log
	return node.Start(ctx, cfg)
}

// startServing starts a node whose configuration the flags change.
func startServing(ctx context.Context, home string, f serveFlags, changed func(flag string) bool, give provided, log *slog.Logger) (runningNode, error) {
	cfg, err := node.LoadConfig(home)
	if err != nil {
		return nil, err
	}
	cfg.Log = log
	if len(f.listen) > 0 {
		cfg.Listen = f.listen
	}
	if f.apiListen != "" {
		cfg.APIListen = f.apiListen
	}
	// A node stays connected to both; a peer to find others through is no more.
	cfg.Peers = slices.Concat(cfg.Peers, f.peers, f.bootstrap)
	cfg.Relays = append(cfg.Relays, f.relays...)
	if f.pskFile != "" {
		cfg.PSKFile = f.pskFile
	}
	if changed("relay") {
		cfg.RelayService = f.relay
	}
	if changed("mdns") {
		cfg.MDNS = &f.mdns
	}
	if f.dht != "" {
		cfg.DHT = f.dht
	}
	if f.region != "" {
		cfg.Region = f.region
	}
	if f.modules != "" {
		cfg.Modules = f.modules
	}
	cfg.Provide = give.over(cfg.Provide)
	return node.Start(ctx, cfg)
}

// over lays what a flag gives over the configuration.
func (p provided) over(c node.Provide) node.Provide {
	if p.Off {
		c.Off = true
	}
	if p.CPU > 0 {
		c.CPU = p.CPU
	}
	if p.Memory > 0 {
		c.Memory = p.Memory
	}
	if p.Disk > 0 {
		c.Disk = p.Disk
	}
	return c
}

// initHome makes a home, or tells of the one there is.
func initHome(home, region string, give provided, network networkFile) (initReport, error) {
	made, err := node.Init(home, node.Config{
		Home: home, Region: region, Provide: give.over(node.Provide{}),
		Peers: network.Peers, PSKFile: network.PrivateKeyFile,
	})
	if err != nil {
		return initReport{}, err
	}
	if _, err := node.LoadConfig(home); err != nil { // a file that exists may be wrong
		return initReport{}, err
	}
	report := initReport{Home: home, Existed: !slices.Contains(made, node.ConfigFile), Config: filepath.Join(home, node.ConfigFile)}
	report.PeerID, report.Account, err = node.Identity(home)
	return report, err
}
