package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/perigee-network/perigee"
)

// ConfigFile is the name of the configuration in a node's home.
const ConfigFile = "config.yaml"

// Provide is what a node gives to others' executions. Zero fields mean a share
// of the machine: all cores, half the memory, 20 GiB of disk.
type Provide struct {
	Off    bool         `yaml:"off"` // give nothing: only ask
	CPU    int          `yaml:"cpu"`
	Memory perigee.Size `yaml:"memory"`
	Disk   perigee.Size `yaml:"disk"`
}

// Config is what a node is started with. The fields with a yaml key can stand
// in the home's config.yaml, where the zero value means the default.
type Config struct {
	Home string `yaml:"-"`

	Region       string            `yaml:"region"`
	Labels       map[string]string `yaml:"labels"`
	Provide      Provide           `yaml:"provide"`
	Modules      string            `yaml:"modules"` // directory of compiled modules; default below Home
	Listen       []string          `yaml:"listen"`
	APIListen    string            `yaml:"api_listen"`
	Peers        []string          `yaml:"peers"`
	PSKFile      string            `yaml:"private_key_file"`
	Relays       []string          `yaml:"relays"`
	RelayService bool              `yaml:"relay_service"`
	MDNS         *bool             `yaml:"mdns"`
	DHT          string            `yaml:"dht"`
	PublicDHT    bool              `yaml:"public_dht"`

	// Embedded marks a node that lives as long as one command.
	Embedded bool         `yaml:"-"`
	Log      *slog.Logger `yaml:"-"`
}

// The defaults of Config's fields.
var (
	// DefaultListen are where a node waits for peers. Peers authenticate each
	// other whoever connects; see doc/protocol.md.
	DefaultListen = []string{"/ip4/0.0.0.0/tcp/4710", "/ip4/0.0.0.0/udp/4710/quic-v1"}
	// fallbackListen serves when another node of this machine has the default port.
	fallbackListen = []string{"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"}
	// embeddedListen serves nodes that live as long as one command.
	embeddedListen = []string{"/ip4/127.0.0.1/tcp/0"}
)

// ListenNone as the only listen address makes a node that only dials: others
// reach it through its relays.
const ListenNone = "none"

// DefaultAPIListen is where the HTTP API listens: loopback, any free port.
const DefaultAPIListen = "127.0.0.1:0"

const sampleConfig = `# Perigee node configuration. Every key is optional; flags of
# "perigee serve" go before what stands here.

# Where this machine is, as a claim: a country's code, perhaps below a bloc's.
# region: EU/DE

# What others may use of this machine; the default is all cores, half the
# memory and 20GiB of disk. "off: true" makes a node that only asks.
# provide: {cpu: 2, memory: 4GiB, disk: 20GiB}

# Where compiled modules are kept; nodes of one user may share a directory, and
# then compile each module once. The default is "modules" below the home.
# modules: /var/cache/perigee/modules

# Words about this machine that its offer tells.
# labels: {rack: a1}

# Addresses to wait for peers at, and peers to stay connected with.
# "listen: [none]" only dials; others reach the node through its relays.
# listen: [/ip4/0.0.0.0/tcp/4710, /ip4/0.0.0.0/udp/4710/quic-v1]
# peers: [/ip4/192.0.2.7/tcp/4710/p2p/12D3KooW…]

# Where the HTTP API listens; requests over TCP need the token in "token".
# api_listen: 127.0.0.1:0

# A file with a private network's pre-shared key; only nodes with the same key
# can talk to each other.
# private_key_file: swarm.key

# Relays for a node that nobody can reach, and whether this node is one.
# relays: [/ip4/192.0.2.7/tcp/4710/p2p/12D3KooW…]
# relay_service: false

# Find nodes on the local network; take part in the routing table.
# mdns: true
# dht: auto            # auto | server | client | off
# public_dht: false    # also look for data in the public IPFS network
`

// LoadConfig reads a home's configuration; one that is missing is the default.
// Unknown keys and malformed values are errors of kind Invalid that name the
// line.
func LoadConfig(home string) (Config, error) {
	cfg := Config{Home: home}
	path := filepath.Join(home, ConfigFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return cfg, perigee.E("node.LoadConfig", perigee.Invalid, err, "cannot read the configuration")
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && err.Error() != "EOF" {
		return cfg, perigee.E("node.LoadConfig", perigee.Invalid, "%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if cfg.Region != "" && !perigee.ValidRegion(cfg.Region) {
		return cfg, perigee.E("node.LoadConfig", perigee.Invalid, "%s: region %q is not of the form EU or EU/DE", path, cfg.Region)
	}
	return cfg, nil
}

// Init makes a home: its directory, keys, token and configuration. What exists
// is left as it is, so that it can be called again; it returns what it made.
func Init(home string, cfg Config) (made []string, err error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, perigee.E("node.Init", perigee.Invalid, err, "cannot make the home directory %s", home)
	}
	_, err = loadKeys(home, &made)
	if err != nil {
		return made, err
	}
	if _, err := loadToken(home, &made); err != nil {
		return made, err
	}
	path := filepath.Join(home, ConfigFile)
	if _, err := os.Stat(path); err == nil {
		return made, nil
	}
	if err := os.WriteFile(path, []byte(sampleConfig+chosen(cfg)), 0o600); err != nil {
		return made, perigee.E("node.Init", perigee.Invalid, err, "cannot write the configuration")
	}
	return append(made, ConfigFile), nil
}

// chosen writes the keys that the caller of Init set.
func chosen(cfg Config) string {
	var b strings.Builder
	if cfg.Region != "" {
		fmt.Fprintf(&b, "\nregion: %s\n", cfg.Region)
	}
	if p := cfg.Provide; p != (Provide{}) {
		b.WriteString("\nprovide:\n")
		if p.Off {
			b.WriteString("  off: true\n")
		}
		if p.CPU > 0 {
			fmt.Fprintf(&b, "  cpu: %d\n", p.CPU)
		}
		if p.Memory > 0 {
			fmt.Fprintf(&b, "  memory: %d\n", int64(p.Memory))
		}
		if p.Disk > 0 {
			fmt.Fprintf(&b, "  disk: %d\n", int64(p.Disk))
		}
	}
	if len(cfg.Listen) > 0 {
		fmt.Fprintf(&b, "\nlisten: [%s]\n", strings.Join(cfg.Listen, ", "))
	}
	if len(cfg.Peers) > 0 {
		fmt.Fprintf(&b, "\npeers: [%s]\n", strings.Join(cfg.Peers, ", "))
	}
	if len(cfg.Relays) > 0 {
		fmt.Fprintf(&b, "\nrelays: [%s]\n", strings.Join(cfg.Relays, ", "))
	}
	if cfg.PSKFile != "" {
		fmt.Fprintf(&b, "\nprivate_key_file: %q\n", cfg.PSKFile)
	}
	return b.String()
}

// splitAddr returns a multiaddr's elements.
func splitAddr(a string) []string { return strings.Split(strings.Trim(a, "/"), "/") }
