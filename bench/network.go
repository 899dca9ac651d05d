package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/perigee-network/perigee/demo/localnet"
)

// build compiles the perigee command and the Go program that runs as a job.
func build(ctx context.Context, dir string) (binary, hello string, err error) {
	binary, hello = filepath.Join(dir, "perigee"), filepath.Join(dir, "hello.wasm")
	if err := goBuild(ctx, binary, "github.com/perigee-network/perigee/cmd/perigee"); err != nil {
		return "", "", err
	}
	err = goBuild(ctx, hello, "github.com/perigee-network/perigee/bench/hello", "GOOS=wasip1", "GOARCH=wasm")
	return binary, hello, err
}

func goBuild(ctx context.Context, out, pkg string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// network starts two nodes that know each other.
func network(ctx context.Context, binary, dir string) ([]*localnet.Node, error) {
	var nodes []*localnet.Node
	var peers []string
	for i := range 2 {
		n, err := localnet.Start(ctx, localnet.Options{Binary: binary, Home: filepath.Join(dir, fmt.Sprintf("node%d", i)), Peers: peers})
		if err != nil {
			localnet.StopAll(nodes)
			return nil, err
		}
		nodes = append(nodes, n)
		peers = n.Status.Addrs
	}
	return nodes, nil
}
