package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// A program asks the node at home for work like this; FromHome finds the node
// that `perigee serve` runs.
func Example() {
	ctx := context.Background()
	node := httptest.NewServer(aNode())
	defer node.Close()
	c, err := client.New(client.Config{URL: node.URL, Token: "secret"}) // or client.FromHome("/home/me/.perigee")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	module := perigee.SumCID(perigee.CodecRaw, []byte("a program"))
	job := perigee.Job{Name: "hello", Wasm: &perigee.Wasm{Module: module.String(), Args: []string{"world"}}}
	id, err := c.Submit(ctx, job, "greeting-1") // the key makes a retry safe
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := c.Wait(ctx, id)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(st.Name, st.State)
	// Output: hello completed
}

// aNode answers as much as the example asks.
func aNode() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/jobs", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"id":"j1"}`)
	})
	mux.HandleFunc("GET /v1/jobs/j1/events", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "event: job\ndata: {\"id\":\"j1\",\"name\":\"hello\",\"state\":\"completed\"}\n\nevent: end\ndata: {}\n\n")
	})
	return mux
}
