package run

// PruneRuns removes old runs.
var PruneRuns = (*Books).pruneRuns
