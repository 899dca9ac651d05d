//go:build !linux

package data

import "os"

const directAlign = 4096

func openDirect(string) *os.File { return nil }

func canWriteDirect([]byte) bool { return false }
