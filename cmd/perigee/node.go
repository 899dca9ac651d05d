package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// session is a client of a running node, or of one that lives as long as the
// command does.
type session struct {
	*client.Client
	embedded bool
	close    func()
}

// session connects to the node that flags and environment name. If none runs at
// home, it starts one in this process, making the home first if need be.
func (a *app) session(ctx context.Context) (*session, error) {
	// Two commands may come upon the same home at once: the one that does not
	// get it waits for the other's node to answer, or to end.
	for deadline := time.Now().Add(startPatience); ; {
		c, err := a.connect()
		if err == nil {
			return &session{Client: c, close: c.Close}, nil
		}
		if a.api != "" || !errors.Is(err, perigee.Unavailable) {
			return nil, err
		}
		s, err := a.embed(ctx)
		if err == nil || !errors.Is(err, perigee.Busy) || time.Now().After(deadline) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, perigee.E("perigee", perigee.Cancelled, "interrupted")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// startPatience is how long a command waits for a home that another has.
const startPatience = 15 * time.Second

// embed starts a node that lives as long as the command.
func (a *app) embed(ctx context.Context) (*session, error) {
	n, err := startEmbedded(ctx, a.home, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	c, err := client.FromHome(a.home)
	if err != nil {
		_ = n.Close()
		return nil, err
	}
	return &session{Client: c, embedded: true, close: func() {
		c.Close()
		_ = n.Close() // what matters is durable before a command ends
	}}, nil
}
