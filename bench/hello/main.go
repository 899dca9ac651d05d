// Command hello is the Go program that the benchmark runs as a job: it prints a
// line. Compiled to WebAssembly it has about 2.6 MB, most of them Go's runtime.
package main

import "fmt"

func main() { fmt.Println("hello") }
