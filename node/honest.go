//go:build !perigee_liar

package node

import "github.com/perigee-network/perigee/data"

// alter and tamper change outputs and served blocks in builds that play a lying
// provider or a corrupt holder; this is not one.
var (
	alter  func(data.Entry) data.Entry
	tamper func(block []byte) []byte
)
