package main

import (
	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

func newDataCmd(a *app) *cobra.Command {
	return group("data", "Add, fetch and keep content-addressed data",
		newDataAddCmd(a), newDataGetCmd(a), newDataCatCmd(a), newDataLsCmd(a), newDataStatCmd(a), newDataRmCmd(a),
		newDataPinCmd(a), newDataUnpinCmd(a), newDataHoldersCmd(a), newDataVerifyCmd(a),
		newDataExportCmd(a), newDataImportCmd(a), newDataGCCmd(a))
}

// connectFor parses a CID and connects: how most commands about a root begin.
func (a *app) connectFor(root string) (*client.Client, perigee.CID, error) {
	id, err := perigee.ParseCID(root)
	if err != nil {
		return nil, id, err
	}
	c, err := a.connect()
	return c, id, err
}
