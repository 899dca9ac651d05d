//go:build !linux

package data

import "os"

func startWriteback(*os.File, int64, int64) {}
