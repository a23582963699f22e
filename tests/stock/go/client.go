package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"sync/atomic"
)

// caller is one application: a client of its own, so that its connections can be counted.
type caller struct {
	http        http.Client
	origin      string
	key         string
	connections int64
	calls       int64
}

func newCaller(origin string) *caller {
	return &caller{origin: origin, key: os.Getenv("SECRET"), http: http.Client{Transport: &http.Transport{}}}
}

func (c *caller) call(method string, path string, body []byte) (int, []byte) {
	request, err := http.NewRequest(method, c.origin+path, bytes.NewReader(body))
	check(err)
	request.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if !got.Reused {
			atomic.AddInt64(&c.connections, 1)
		}
	}}
	response, err := c.http.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(err)
	c.calls++
	return response.StatusCode, text
}

func (c *caller) must(status int, method string, path string, body []byte) []byte {
	got, text := c.call(method, path, body)
	if got != status {
		check(fmt.Errorf("%s %s: %d %s", method, path, got, text))
	}
	return text
}

// journey polls while it publishes COUNT notifications, and prints what came and on how many connections.
func journey() {
	poller, publisher := newCaller(os.Getenv("POLLS")), newCaller(os.Getenv("REST"))
	count, err := strconv.Atoi(os.Getenv("COUNT"))
	check(err)
	poller.must(204, "GET", "/v2/notification/pull?noWait=true", nil)
	publisher.must(204, "PUT", "/v2/subscriptions", []byte(`[{"endpoint-name": "sensor-1"}]`))
	published := make(chan bool)
	go func() {
		for number := 0; number < count; number++ {
			publisher.must(202, "POST", "/v1/events", event(number))
		}
		close(published)
	}()
	numbers := []int{}
	for len(numbers) < count {
		status, text := poller.call("GET", "/v2/notification/pull", nil)
		if status == 200 {
			numbers = append(numbers, numbersIn(text)...)
		} else if status != 204 {
			check(fmt.Errorf("a poll: %d %s", status, text))
		}
	}
	<-published
	poller.must(204, "GET", "/v2/notification/pull?noWait=true", nil)
	report(map[string]any{
		"numbers":             numbers,
		"poll_calls":          poller.calls,
		"poll_connections":    poller.connections,
		"publish_calls":       publisher.calls,
		"publish_connections": publisher.connections,
	})
}

func event(number int) []byte {
	payload := base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(number)))
	data := map[string]any{"ep": "sensor-1", "path": "/3303/0/5700", "ct": "text/plain", "payload": payload}
	body, err := json.Marshal([]any{map[string]any{"topic": "device.notifications", "data": data}})
	check(err)
	return body
}

func numbersIn(text []byte) []int {
	var message struct {
		Notifications []struct{ Payload []byte }
	}
	check(json.Unmarshal(text, &message))
	numbers := []int{}
	for _, item := range message.Notifications {
		number, err := strconv.Atoi(string(item.Payload))
		check(err)
		numbers = append(numbers, number)
	}
	return numbers
}
