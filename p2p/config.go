package p2p

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/perigee-network/perigee"
)

const (
	maxAddr        = 1024 // characters of a multiaddr
	offeredAddrTTL = 2 * time.Hour

	defaultMaxPeers   = 256
	defaultMaxStreams = 128
)

// check validates the configuration and fills in defaults.
func (c *Config) check() error {
	const op = "p2p.New"
	switch {
	case c.Key == nil:
		return perigee.E(op, perigee.Invalid, "a node needs a key")
	case c.PSK != nil && len(c.PSK) != 32:
		return perigee.E(op, perigee.Invalid, "the pre-shared key has %d bytes; it must have 32", len(c.PSK))
	case c.PSK != nil && c.PublicDHT:
		return perigee.E(op, perigee.Invalid, "a node of a private network cannot take part in the public IPFS DHT")
	}
	switch c.DHT {
	case "":
		c.DHT = "auto"
	case "auto", "server", "client", "off":
	default:
		return perigee.E(op, perigee.Invalid, "DHT mode %q; it is auto, server, client or off", c.DHT)
	}
	switch c.Reachability {
	case "":
		c.Reachability = "auto"
	case "auto", "public", "private":
	default:
		return perigee.E(op, perigee.Invalid, "reachability %q; it is auto, public or private", c.Reachability)
	}
	if c.MaxPeers <= 0 {
		c.MaxPeers = defaultMaxPeers
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = defaultMaxStreams
	}
	return nil
}

// listenAddrs parses the addresses to listen on. In a private network those of
// UDP transports are left out: a pre-shared key protects streams only.
func (c *Config) listenAddrs() (use []ma.Multiaddr, skipped []string, err error) {
	for _, s := range c.Listen {
		a, err := parseAddr(s)
		if err != nil {
			return nil, nil, perigee.E("p2p.New", perigee.Invalid, err, "cannot listen on %q", s)
		}
		if _, err := a.ValueForProtocol(ma.P_UDP); err == nil && c.PSK != nil {
			skipped = append(skipped, s)
			continue
		}
		use = append(use, a)
	}
	return use, skipped, nil
}

// parseAddr reads a multiaddr. The error is of kind Invalid.
func parseAddr(s string) (ma.Multiaddr, error) {
	if len(s) > maxAddr {
		return nil, perigee.E("p2p.parseAddr", perigee.Invalid, "an address has at most %d characters, this has %d", maxAddr, len(s))
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil || len(a) == 0 {
		return nil, perigee.E("p2p.parseAddr", perigee.Invalid, err,
			"%q is not a multiaddr such as /ip4/192.0.2.1/tcp/4001", s)
	}
	return a, nil
}

// parsePeer reads a multiaddr that names a peer. The error is of kind Invalid.
func parsePeer(s string) (peer.AddrInfo, error) {
	const op = "p2p.parsePeer"
	a, err := parseAddr(strings.TrimSpace(s))
	if err != nil {
		return peer.AddrInfo{}, err
	}
	info, err := peer.AddrInfoFromP2pAddr(a)
	if err != nil {
		return peer.AddrInfo{}, perigee.E(op, perigee.Invalid,
			"%q names no peer; an address to connect to ends in /p2p/PEER, as `perigee status` prints it on the other node", s)
	}
	if len(info.Addrs) == 0 {
		return peer.AddrInfo{}, perigee.E(op, perigee.Invalid, "%q says who but not where; put an address such as /ip4/192.0.2.1/tcp/4001 before /p2p/", s)
	}
	return *info, nil
}

// parsePeers reads many, joining the addresses of one peer. what names them in
// errors.
func parsePeers(what string, list []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	index := map[peer.ID]int{}
	for _, s := range list {
		info, err := parsePeer(s)
		if err != nil {
			return nil, perigee.E("p2p.New", perigee.Invalid, err, "bad %s address", what)
		}
		if i, ok := index[info.ID]; ok {
			out[i].Addrs = append(out[i].Addrs, info.Addrs...)
			continue
		}
		index[info.ID] = len(out)
		out = append(out, info)
	}
	return out, nil
}

const pskHeader = "/key/swarm/psk/1.0.0/"

// GeneratePSK returns a new pre-shared key and its file form, which ParsePSK
// and other libp2p programs read.
func GeneratePSK() (psk []byte, file []byte, err error) {
	psk = make([]byte, 32)
	if _, err := rand.Read(psk); err != nil {
		return nil, nil, perigee.E("p2p.GeneratePSK", perigee.Internal, err)
	}
	return psk, FormatPSK(psk), nil
}

// FormatPSK returns the file form of a 32-byte pre-shared key.
func FormatPSK(psk []byte) []byte {
	return fmt.Appendf(nil, "%s\n/base16/\n%s\n", pskHeader, hex.EncodeToString(psk))
}

// ParsePSK reads a pre-shared key from the content of a file as go-ipfs's
// swarm.key: a line "/key/swarm/psk/1.0.0/", a line "/base16/" or "/base64/",
// and the key of 32 bytes. The error is of kind Invalid.
func ParsePSK(file []byte) ([]byte, error) {
	const op = "p2p.ParsePSK"
	if len(file) > 4096 {
		return nil, perigee.E(op, perigee.Invalid, "a pre-shared key file has at most 4096 bytes, this has %d", len(file))
	}
	var lines []string
	for scan := bufio.NewScanner(bytes.NewReader(file)); scan.Scan(); {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) != 3 || lines[0] != pskHeader {
		return nil, perigee.E(op, perigee.Invalid, "not a pre-shared key: it has three lines, %s, /base16/ and 64 hexadecimal digits", pskHeader)
	}
	var psk []byte
	var err error
	switch lines[1] {
	case "/base16/":
		psk, err = hex.DecodeString(lines[2])
	case "/base64/":
		psk, err = base64.StdEncoding.DecodeString(lines[2])
	default:
		return nil, perigee.E(op, perigee.Invalid, "pre-shared key in encoding %q; this program reads /base16/ and /base64/", lines[1])
	}
	// The cause is left out: it may quote the secret.
	if err != nil || len(psk) != 32 {
		return nil, perigee.E(op, perigee.Invalid, "the third line of the pre-shared key is not 32 bytes in the encoding %s", lines[1])
	}
	return psk, nil
}
