//go:build unix && !linux

package wasm

// confine says that this system has nothing to confine a worker with.
func confine(cacheDir, purpose string) readyMessage {
	return readyMessage{Sandbox: "separate process", Missing: "Landlock and seccomp, which only Linux has"}
}
