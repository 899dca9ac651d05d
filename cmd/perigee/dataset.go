package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newDatasetCmd(a *app) *cobra.Command {
	return group("dataset", "Name data whose parts may lie on many nodes",
		newDatasetPublishCmd(a), newDatasetListCmd(a), newDatasetShowCmd(a), newDatasetJoinCmd(a))
}

// splitDataset reads OWNER/NAME.
func splitDataset(s string) (owner, name string, err error) {
	owner, name, ok := strings.Cut(s, "/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", "", perigee.E("dataset", perigee.Invalid, "%q is not of the form OWNER/NAME", s)
	}
	if _, err := perigee.AccountID(owner).PublicKey(); err != nil {
		return "", "", perigee.E("dataset", perigee.Invalid, "the owner in %q is not an account (z6Mk…)", s)
	}
	return owner, name, nil
}
