package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"

	"github.com/perigee-network/perigee"
)

// codePanic resets a stream whose handler failed; it lies outside the range that
// libp2p reserves.
const codePanic network.StreamErrorCode = 0x50000

// streamError explains an error on a stream with who at the other end.
func streamError(ctx context.Context, op string, who perigee.PeerID, proto string, err error) error {
	if err == nil {
		return nil
	}
	var pe *perigee.Error
	if errors.As(err, &pe) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		kind := perigee.KindOf(ctx.Err())
		text := "stopped waiting for peer %s on %s"
		if kind == perigee.Timeout {
			text = "peer %s did not answer on %s in time"
		}
		return perigee.E(op, kind, cause, text, who, proto)
	}
	var reset *network.StreamError
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF):
		return perigee.E(op, perigee.Unavailable, io.EOF, "peer %s ended the stream on %s", who, proto)
	case errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}):
		return perigee.E(op, perigee.Unsupported, "peer %s does not speak %s; it may run another version or not be a Perigee node", who, proto)
	case errors.As(err, &reset) && reset.Remote:
		switch reset.ErrorCode {
		case network.StreamResourceLimitExceeded, network.StreamRateLimited:
			return perigee.E(op, perigee.Busy, "peer %s has too many streams of %s from this node; try again later", who, proto)
		case network.StreamProtocolViolation:
			return perigee.E(op, perigee.Corrupt, "peer %s refused a malformed message on %s", who, proto)
		case codePanic:
			return perigee.E(op, perigee.Internal, "peer %s failed while answering %s; its log says why", who, proto)
		}
		return perigee.E(op, perigee.Unavailable, err, "peer %s broke off on %s", who, proto)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return perigee.E(op, perigee.Timeout, "peer %s did not answer on %s in time", who, proto)
	}
	return perigee.E(op, perigee.Unavailable, err, "the connection to peer %s broke on %s", who, proto)
}

// dialError explains why a peer could not be reached.
func (n *Network) dialError(ctx context.Context, op string, who perigee.PeerID, err error) error {
	var dial *swarm.DialError
	var mismatch sec.ErrPeerIDMismatch
	var wrong *sec.ErrPeerIDMismatch
	switch {
	case errors.As(err, &mismatch):
		return perigee.E(op, perigee.Invalid, "the node at that address is %s, not %s", mismatch.Actual, who)
	case errors.As(err, &wrong):
		return perigee.E(op, perigee.Invalid, "the node at that address is %s, not %s", wrong.Actual, who)
	case errors.Is(ctx.Err(), context.Canceled):
		return perigee.E(op, perigee.Cancelled, ctx.Err(), "stopped connecting to peer %s", who)
	case errors.Is(err, network.ErrNoRemoteAddrs), errors.Is(err, swarm.ErrNoAddresses):
		return perigee.E(op, perigee.Unavailable, "no address of peer %s is known; connect to it by address, or to a peer that knows it", who)
	case errors.Is(err, swarm.ErrNoGoodAddresses):
		return perigee.E(op, perigee.Unavailable, "no address of peer %s can be dialled from here%s", who, n.pskHint())
	case errors.Is(err, swarm.ErrDialToSelf):
		return perigee.E(op, perigee.Invalid, "%s is this node itself", who)
	case errors.As(err, &dial):
		text, security := dialReasons(dial)
		if security {
			return perigee.E(op, perigee.Unavailable, "peer %s answered, but the two could not agree on a secure channel (%s)%s", who, text, n.pskHint())
		}
		if ctx.Err() != nil {
			return perigee.E(op, perigee.Timeout, "peer %s did not answer in time (%s)", who, text)
		}
		return perigee.E(op, perigee.Unavailable, "peer %s cannot be reached (%s)", who, text)
	case ctx.Err() != nil:
		return perigee.E(op, perigee.Timeout, err, "peer %s did not answer in time", who)
	}
	return perigee.E(op, perigee.Unavailable, err, "peer %s cannot be reached", who)
}

// pskHint says what a key mismatch may look like from either side.
func (n *Network) pskHint() string {
	if n.cfg.PSK != nil {
		return "; this node is in a private network: does the other have the same pre-shared key?"
	}
	return "; is the other in a private network, whose pre-shared key this node lacks?"
}

// dialReasons lists up to three addresses with what went wrong, and tells
// whether a connection was made but not secured.
func dialReasons(d *swarm.DialError) (text string, security bool) {
	var parts []string
	for i, e := range d.DialErrors {
		cause := e.Cause.Error()
		if strings.Contains(cause, "negotiate security protocol") {
			security = true
		}
		if i < 3 {
			parts = append(parts, e.Address.String()+": "+oneLine(cause))
		}
	}
	if more := len(d.DialErrors) + d.Skipped - len(parts); more > 0 {
		parts = append(parts, "and more")
	}
	if len(parts) == 0 && d.Cause != nil {
		parts = append(parts, oneLine(d.Cause.Error()))
	}
	return strings.Join(parts, "; "), security
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}
