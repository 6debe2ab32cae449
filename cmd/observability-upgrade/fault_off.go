//go:build !faultinject

package main

import "github.com/observability-upgrade/observability-upgrade/internal/hostfs"

func faultGuard() hostfs.Guard { return nil }
