// Package client is the Go client of a node's HTTP API. Its types are the wire
// format: package api answers with them and describes them in its OpenAPI
// document. The command line and the tests use nothing else to talk to a node.
package client
