// Go's net/http on both sides: `receive CERT KEY` takes webhooks, `journey` is a client of our API.
// The standard library of Go 1.19 suffices, so that it builds offline and with Debian's compiler.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

var printing sync.Mutex

// report prints one line of JSON.
func report(event map[string]any) {
	line, err := json.Marshal(event)
	check(err)
	printing.Lock()
	defer printing.Unlock()
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	switch os.Args[1] {
	case "receive":
		receive(os.Args[2], os.Args[3])
	case "journey":
		journey()
	}
}
