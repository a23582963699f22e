//go:build tools

// Package programs names what is built from other modules, so that go.mod keeps their versions.
package programs

import (
	_ "helm.sh/helm/v3/cmd/helm"
	_ "sigs.k8s.io/kube-network-policies/cmd"
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
