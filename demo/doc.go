// Package demo shows Perigee at work on real data: it starts a network of
// separate node processes on this machine, spreads one million flights over
// them, runs one job over all of them and says what happened.
//
// The job's programs are demo/flights (map) and demo/flightsmerge (merge); what
// they compute is package flightstat. This package uses only the HTTP client
// and the perigee binary itself, as any other program would.
package demo
