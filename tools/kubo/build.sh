#!/bin/sh
# Builds the ipfs program of the pinned Kubo into .cache/kubo/ipfs, unless that
# version is there. The interoperation tests (e2e/interop_test.go) run it.
set -eu
cd "$(dirname "$0")"
out=../../.cache/kubo/ipfs
want=$(go list -m -f '{{.Version}}' github.com/ipfs/kubo)
if [ -x "$out" ] && [ "v$("$out" version --number)" = "$want" ]; then
	exit 0
fi
echo "building Kubo $want: this takes a minute or more" >&2
mkdir -p ../../.cache/kubo
exec go build -o "$out" github.com/ipfs/kubo/cmd/ipfs
