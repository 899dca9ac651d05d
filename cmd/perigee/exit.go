package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/perigee-network/perigee"
)

// The exit codes. exitCodes is the one place that maps kinds of errors to them.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4
	exitNoNode   = 5
	exitGuest    = 10 // plus the guest's own exit code
	maxGuestExit = 99 // a guest's higher codes are told as this one
)

var exitCodes = map[perigee.Kind]int{
	perigee.Invalid:     exitUsage,
	perigee.Unsupported: exitUsage,
	perigee.NotFound:    exitNotFound,
	perigee.Refused:     exitRefused,
	perigee.Unavailable: exitNoNode,
}

const exitHelp = `Exit codes:
  0     done
  1     failed
  2     bad usage or bad input
  3     not found
  4     refused: policy, price or permission
  5     no node reachable
  10+n  under run, the guest program ended with exit code n (1 to 99)
`

// usageError is a command line that makes no sense.
type usageError struct {
	msg string
	cmd string // the command to ask for help
}

func (e *usageError) Error() string { return e.msg }

// Is lets usage errors count as bad input.
func (e *usageError) Is(target error) bool { return target == perigee.Invalid } //nolint:errorlint // as errors.Is asks

func usagef(format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// guestError is a guest program's non-zero exit code. It has printed whatever it
// had to say itself.
type guestError struct{ code int }

func (e *guestError) Error() string {
	return fmt.Sprintf("the program ended with exit code %d", e.code)
}

// exitCode maps an error to the command's exit code.
func exitCode(err error) int {
	var usage *usageError
	var guest *guestError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &guest):
		return exitGuest + max(1, min(guest.code, maxGuestExit))
	case errors.As(err, &usage):
		return exitUsage
	}
	if code, ok := exitCodes[perigee.KindOf(err)]; ok {
		return code
	}
	return exitFailed
}

// report tells a person what went wrong, in one sentence where one will do.
func (a *app) report(err error) {
	if err == nil {
		return
	}
	var usage *usageError
	var guest *guestError
	if errors.As(err, &guest) && !a.errTTY {
		return // standard error is the program's own, and the exit code says it
	}
	fmt.Fprintf(a.errOut, "perigee: %s\n", strings.TrimSpace(err.Error()))
	if errors.As(err, &usage) && usage.cmd != "" {
		fmt.Fprintf(a.errOut, "Try: %s --help\n", usage.cmd)
	}
}
