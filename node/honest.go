//go:build !perigee_liar

package node

import "github.com/perigee-network/perigee/data"

// alter changes outputs in builds that play a lying provider; this is not one.
var alter func(data.Entry) data.Entry
