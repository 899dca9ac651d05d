package main

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newProviderCmd(a *app) *cobra.Command {
	offer := group("offer", "This node's own offer", newOfferShowCmd(a))
	return group("provider", "See who offers to run work", newProviderListCmd(a), newProviderShowCmd(a), offer)
}

func newProviderListCmd(a *app) *cobra.Command {
	var region, gpu string
	c := &cobra.Command{
		Use:   "list",
		Short: "List known offers",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runProviderList(cmd, a, region, gpu) },
	}
	c.Flags().StringVar(&region, "region", "", "only from this region or below it, such as EU")
	c.Flags().StringVar(&gpu, "gpu", "", "only offers labelled with this GPU model")
	return c
}

func runProviderList(cmd *cobra.Command, a *app, region, gpu string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	offers, err := c.Providers(cmd.Context(), region)
	if err != nil {
		return err
	}
	kept := make([]perigee.Offer, 0, len(offers))
	for _, o := range offers {
		if gpu == "" || strings.EqualFold(o.Labels["gpu"], gpu) {
			kept = append(kept, o)
		}
	}
	return a.show(kept, func(w io.Writer) {
		if len(kept) == 0 {
			fmt.Fprintln(w, "no offers known")
			return
		}
		t := newTable("PROVIDER", "REGION", ">CPU", ">MEMORY", ">DISK", ">PRICE", "CLASS", "EXPIRES")
		for _, o := range kept {
			t.row(string(o.Provider), orDash(o.Region), fmt.Sprint(o.CPU), bytesText(o.Memory), bytesText(o.Disk), o.Price.String(), o.Class, ago(time.UnixMilli(o.Expires)))
		}
		t.print(w)
	})
}

func newProviderShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a provider's offer",
		Args:  takes(1, 1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runOffer(cmd, a, args[0]) },
	}
}

func newOfferShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show what this node offers",
		Args:  takes(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runOffer(cmd, a, "self") },
	}
}

func runOffer(cmd *cobra.Command, a *app, id string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	o, err := c.Provider(cmd.Context(), id)
	if err != nil {
		return err
	}
	return a.show(o, func(w io.Writer) {
		labels := make([]string, 0, len(o.Labels))
		for k, v := range o.Labels {
			labels = append(labels, k+"="+v)
		}
		sort.Strings(labels)
		pairs(w,
			"provider", string(o.Provider),
			"account", string(o.Account),
			"region", orDash(o.Region),
			"executions at once", fmt.Sprint(o.CPU),
			"memory", bytesText(o.Memory),
			"disk", bytesText(o.Disk),
			"price per execution", o.Price.String()+" credits",
			"engines", strings.Join(o.Engines, ", "),
			"class", o.Class,
			"labels", strings.Join(labels, ", "),
			"addresses", strings.Join(o.Addrs, ", "),
			"version", o.Version,
			"made", ago(time.UnixMilli(int64(o.Sequence))),
			"expires", ago(time.UnixMilli(o.Expires)),
		)
	})
}
