package wasm

// confine closes the sandbox.
func confine(cacheDir, purpose string) readyMessage {
	return readyMessage{Sandbox: "none yet"}
}
