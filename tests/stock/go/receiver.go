package main

import (
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const limitBytes = 100_000

type requestsKey struct{}

var (
	redirectedMutex sync.Mutex
	redirected      = map[string]bool{}
)

// receive serves plain, with TLS (HTTP/2 is offered then), and with a keep-alive that ends at once.
func receive(cert string, key string) {
	ports := map[string]int{}
	for _, name := range []string{"http", "https", "brief"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		ports[name] = listener.Addr().(*net.TCPAddr).Port
		server := &http.Server{Handler: http.HandlerFunc(take)}
		server.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, requestsKey{}, new(int))
		}
		if name == "brief" {
			server.IdleTimeout = time.Millisecond
		}
		if name == "https" {
			go func() { check(server.ServeTLS(listener, cert, key)) }()
		} else {
			go func() { check(server.Serve(listener)) }()
		}
	}
	report(map[string]any{"ports": ports})
	select {}
}

func take(w http.ResponseWriter, r *http.Request) {
	behaviour := strings.Split(r.URL.Path, "/")[1]
	requests := r.Context().Value(requestsKey{}).(*int)
	*requests++
	switch {
	case behaviour == "drops-reused" && *requests > 1:
		hijacked(w).Close()
		return
	case behaviour == "early":
		record(r, 200, nil)
		w.WriteHeader(200)
		return
	case behaviour == "limit":
		r.Body = http.MaxBytesReader(w, r.Body, limitBytes)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if behaviour == "limit" {
			record(r, 413, nil)
			http.Error(w, "too large", 413)
		}
		return
	}
	respond(behaviour, w, r, body)
}

func respond(behaviour string, w http.ResponseWriter, r *http.Request, body []byte) {
	status := 200
	if code, isRedirect := redirection(behaviour, r.URL.Path, body); isRedirect {
		status = code
	} else if strings.HasPrefix(behaviour, "no-content") {
		status = 204
	}
	record(r, status, body)
	switch {
	case status >= 300:
		http.Redirect(w, r, "/elsewhere/"+r.URL.Path, status)
	case behaviour == "close-unannounced":
		connection := hijacked(w)
		io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		connection.Close()
	case behaviour == "no-content":
		w.WriteHeader(204)
	case behaviour == "no-content-with-body":
		w.WriteHeader(204)
		io.WriteString(w, "ok") // Refused by Go.
	case behaviour == "close":
		w.Header().Set("Connection", "close")
		io.WriteString(w, "ok")
	case behaviour == "slow":
		time.Sleep(150 * time.Millisecond)
		inPieces(w, 3, "slow", 20*time.Millisecond)
	case behaviour == "gzip":
		w.Header().Set("Content-Encoding", "gzip")
		packed := gzip.NewWriter(w)
		io.WriteString(packed, strings.Repeat("ok", 100))
		packed.Close()
	case behaviour == "early-hints":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(200)
	case behaviour == "trailers":
		w.Header().Set("Trailer", "X-Sum")
		inPieces(w, 2, "ok", 0)
		w.Header().Set("X-Sum", "2")
	case behaviour == "chunked":
		inPieces(w, 3, "ok", 0)
	case behaviour == "long-body":
		io.WriteString(w, strings.Repeat("long", 250_000))
	default:
		io.WriteString(w, "ok")
	}
}

// redirection is true for the first request behind the test request.
func redirection(behaviour string, path string, body []byte) (int, bool) {
	code := strings.TrimPrefix(behaviour, "redirect-")
	if code == behaviour || string(body) == "{}" {
		return 0, false
	}
	redirectedMutex.Lock()
	defer redirectedMutex.Unlock()
	if redirected[path] {
		return 0, false
	}
	redirected[path] = true
	status, err := strconv.Atoi(code)
	check(err)
	return status, true
}

func inPieces(w http.ResponseWriter, count int, piece string, pause time.Duration) {
	for n := 0; n < count; n++ {
		io.WriteString(w, piece)
		w.(http.Flusher).Flush()
		time.Sleep(pause)
	}
}

func hijacked(w http.ResponseWriter) net.Conn {
	connection, _, err := w.(http.Hijacker).Hijack()
	check(err)
	return connection
}

// record prints a request that was decided. A body of nil was not read.
func record(r *http.Request, status int, body []byte) {
	event := map[string]any{
		"path": r.URL.Path, "status": status, "body": nil, "version": r.Proto,
		"headers": r.Header, "peer": r.RemoteAddr, "length": r.ContentLength,
	}
	if body != nil {
		event["body"] = string(body)
	}
	report(event)
}
