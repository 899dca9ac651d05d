package main

import "github.com/spf13/cobra"

func newDatasetCmd(a *app) *cobra.Command {
	return group("dataset", "Name data whose parts may lie on many nodes",
		newDatasetPublishCmd(a), newDatasetListCmd(a), newDatasetShowCmd(a), newDatasetJoinCmd(a))
}
