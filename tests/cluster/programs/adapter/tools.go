//go:build tools

// Package adapter names prometheus-adapter. It is a module of its own: it needs an older Kubernetes than the others.
package adapter

import _ "sigs.k8s.io/prometheus-adapter/cmd/adapter"
