//go:build tools

// Package beside names programs that are no part of Kubernetes. They are a module of their own: in one module they
// would lift the versions that Kubernetes was released with.
package beside

import (
	_ "sigs.k8s.io/kube-network-policies/cmd"
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
