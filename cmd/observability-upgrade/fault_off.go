//go:build !faultinject

package main

import (
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func faults() (hostfs.Guard, func() time.Time) { return nil, nil }
