// Determinism prints everything that differs between machines and runs elsewhere.
package main

import (
	crand "crypto/rand"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sync"
	"time"
)

func main() {
	start := time.Now()
	fmt.Println(start.UTC().Format(time.RFC3339Nano))
	b := make([]byte, 16)
	crand.Read(b)
	fmt.Printf("%x %d\n", b, rand.Int63())
	m := map[int]string{}
	for i := range 50 {
		m[i] = fmt.Sprint(i)
	}
	for k := range m {
		fmt.Print(k, " ")
	}
	fmt.Println()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			time.Sleep(time.Duration(i%3) * time.Millisecond)
			runtime.Gosched()
			mu.Lock()
			defer mu.Unlock()
			fmt.Print(i, " ")
		})
	}
	wg.Wait()
	fmt.Println()
	time.Sleep(time.Hour)
	fmt.Println(time.Since(start), os.Args, os.Environ())
	for _, dir := range os.Args[1:] {
		entries, err := os.ReadDir(dir)
		fmt.Println(dir, err)
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Println(info.Name(), info.Size(), info.Mode(), info.ModTime().UTC())
		}
	}
	wd, err := os.Getwd()
	fmt.Println(wd, err)
	os.WriteFile("/out/report.txt", b, 0o644)
}
