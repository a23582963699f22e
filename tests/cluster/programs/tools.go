//go:build tools

// Package programs names what is built from other modules, so that go.mod keeps their versions.
package programs

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
