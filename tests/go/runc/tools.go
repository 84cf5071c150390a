//go:build tools

// Package runc pins the OCI runtime under the peers of Corten's measurements.
package runc

import _ "github.com/opencontainers/runc"
