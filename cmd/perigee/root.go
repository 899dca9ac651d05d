package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/perigee-network/perigee"
)

// newRootCmd returns the whole command line.
func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "perigee",
		Short: "Put compute where data lies, and check the result",
		Long: `Perigee runs programs where data lies, on machines nobody owns together, and
gives back results that can be checked.

  perigee run --input DIR program.wasm -- args   run a program over data
  perigee serve                                  be a node of the network
  perigee demo                                   see it work, on a network of its own`,
		Version:           perigee.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              noSubcommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetVersionTemplate("perigee {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpTemplate(root.HelpTemplate() + `{{if not .HasParent}}
` + exitHelp + `{{end}}`)

	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", envOr("PERIGEE_HOME", defaultHome()), "home directory of the node (env PERIGEE_HOME)")
	flags.StringVar(&a.api, "api", os.Getenv("PERIGEE_API"), "URL of the node's API instead of the one at home (env PERIGEE_API, with PERIGEE_TOKEN)")
	flags.BoolVar(&a.json, "json", false, "print JSON")

	root.AddGroup(&cobra.Group{ID: "work", Title: "Work:"}, &cobra.Group{ID: "data", Title: "Data:"}, &cobra.Group{ID: "node", Title: "Node and network:"})
	for _, c := range []*cobra.Command{newRunCmd(a), newJobCmd(a), newReceiptCmd(a), newDemoCmd(a)} {
		c.GroupID = "work"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newDataCmd(a), newDatasetCmd(a)} {
		c.GroupID = "data"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newInitCmd(a), newServeCmd(a), newStatusCmd(a), newPeersCmd(a), newConnectCmd(a), newProviderCmd(a)} {
		c.GroupID = "node"
		root.AddCommand(c)
	}
	root.AddCommand(newVersionCmd(a))
	return root
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(commands...)
	return c
}

// noSubcommand refuses a word where a subcommand is due, with the nearest one.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("there is no command %q under %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return &usageError{msg: msg, cmd: cmd.CommandPath()}
}

// takes returns a check of the number of arguments; most < 0 is any number.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return &usageError{msg: "missing argument; the form is: " + cmd.UseLine(), cmd: cmd.CommandPath()}
		case most >= 0 && len(args) > most:
			return &usageError{msg: fmt.Sprintf("unexpected argument %q; the form is: %s", args[most], cmd.UseLine()), cmd: cmd.CommandPath()}
		}
		return nil
	}
}

// flagError names the nearest flag when one is unknown.
func flagError(cmd *cobra.Command, err error) error {
	msg := err.Error()
	if rest, ok := strings.CutPrefix(msg, "unknown flag: --"); ok {
		msg = "there is no flag --" + rest + " for " + cmd.CommandPath()
		if near := nearestFlag(cmd, rest); near != "" {
			msg += "; did you mean --" + near + "?"
		} else if cmd.Name() == "run" {
			msg += "; arguments for the program come after --"
		}
	}
	return &usageError{msg: msg, cmd: cmd.CommandPath()}
}

func nearestFlag(cmd *cobra.Command, name string) string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	sort.Strings(names)
	best, least := "", 3
	for _, n := range names {
		if d := editDistance(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := before
			if a[i-1] != b[j-1] {
				cost++
			}
			before = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
