package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Books is the Recorder of the real program: the state file, the history
// database and one result file per run. Everything it writes is keyed by the
// run, so writing it twice is writing it once.
type Books struct {
	Root   layout.Root
	Host   *hostfs.Host
	Now    func() time.Time
	Retain int // backup points to keep
	// RetainRuns is how many runs are kept in the directory of runs; 0 keeps all.
	RetainRuns int
	Rebuild    func(ctx context.Context) (*state.File, error) // makes a state file anew where it cannot be read
	Notice     func(string)                                   // told when that was done; may be nil
}

var _ Recorder = (*Books)(nil)

// Record writes the outcome of one component. A component that was not
// attempted leaves no trace but in the run's result.
func (b *Books) Record(ctx context.Context, run Header, ch Change, out Outcome) error {
	if out.Status == NotAttempted || run.Operation == Restart {
		return nil
	}
	if err := b.recordHistory(ctx, run, ch, out); err != nil {
		return err
	}
	return b.recordState(ctx, run, ch, out)
}

func (b *Books) recordHistory(ctx context.Context, run Header, ch Change, out Outcome) error {
	if err := b.Host.Check("history", out.Name); err != nil {
		return err
	}
	db, err := history.Open(ctx, b.Root.History())
	if err != nil {
		return err
	}
	defer db.Close()
	if run.Operation == Rollback {
		return markHistory(ctx, db, run, ch, out)
	}
	healthy := out.Healthy
	row := history.Upgrade{
		Timestamp: run.StartedAt, RunID: run.ID, Component: out.Name,
		OldVersion: out.From.String(), NewVersion: out.To.String(), ErrorMessage: out.Error,
		Duration: duration(out.Duration), Downtime: duration(out.Downtime),
		TriggeredBy: run.Trigger, BackupPath: run.BackupPath, HealthCheckPassed: &healthy, Evidence: out.Evidence,
	}
	switch out.Status {
	case Upgraded:
		row.Status = history.Success
		if !ch.hasService() || !ch.WasActive || ch.Health.Skip {
			row.HealthCheckPassed = nil // none was made
		}
	case RolledBack:
		at := run.StartedAt.Add(row.Duration)
		row.Status, row.RollbackTimestamp = history.RolledBack, &at
		failed := false
		row.HealthCheckPassed = &failed
	case Failed:
		row.Status = history.Failed
		if kept, err := arrivedBefore(ctx, db, row); err != nil || kept {
			return err
		}
	default:
		row.Status = history.Failed
	}
	_, err = db.Record(ctx, row)
	return err
}

// arrivedBefore reports whether another instance of the component arrived in the same
// run: one that failed before it was touched leaves the new files in place, and the
// row says what they are. The run's result tells of the instance.
func arrivedBefore(ctx context.Context, db *history.DB, row history.Upgrade) (bool, error) {
	rows, err := db.List(ctx, history.Filter{RunID: row.RunID, Components: []string{row.Component}, Status: history.Success})
	for _, r := range rows {
		if r.NewVersion == row.NewVersion {
			return true, err
		}
	}
	return false, err
}

// markHistory has the history follow a rollback: the upgrades made since its
// backup point was taken are rolled back, and those that were in force then and
// were rolled back since are in force again. A component that returned to where
// it was before the rollback gets its marks back, as another instance of it may
// have arrived.
func markHistory(ctx context.Context, db *history.DB, run Header, ch Change, out Outcome) error {
	var undone []history.Mark
	for _, id := range ch.Undoes {
		undone = append(undone, history.Mark{ID: id, By: run.ID, At: run.StartedAt})
	}
	switch {
	case out.arrived(Rollback):
		return errors.Join(db.MarkRolledBack(ctx, undone), db.MarkInForce(ctx, ch.Redoes))
	case out.returned(Rollback), ch.Rolling != nil && !ch.remote() && ch.filesAre(before):
		return errors.Join(db.MarkInForce(ctx, undone), db.MarkRolledBack(ctx, ch.Redoes))
	}
	return nil
}

// duration is the inverse of seconds, which rounds to milliseconds.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds*1000)) * time.Millisecond
}

func (b *Books) recordState(ctx context.Context, run Header, ch Change, out Outcome) error {
	return b.editState(ctx, func(f *state.File) {
		defer forgetGone(f, run, ch, out)
		defer recordInstance(f, run, ch, out)
		switch {
		case ch.remote(): // its own host keeps its state
		case out.arrived(run.Operation):
			c := f.Components[out.Name]
			if again := c.HasBackup(filepath.Base(run.BackupPath)); !again && c.CurrentVersion != out.To.String() || c.PreviousVersion == "" { // "": rebuilt after the swap
				c.PreviousVersion = out.From.String()
			}
			c.CurrentVersion = out.To.String()
			c.UpgradedAt = run.StartedAt.Add(duration(out.Duration)).Truncate(time.Second)
			if c.InstalledAt.IsZero() {
				c.InstalledAt = c.UpgradedAt
			}
			c.ReleasedAt, c.Archive = ch.ReleasedAt, ch.Archive
			if run.Operation == Apply {
				// Without a signature only what a person allowed gets here. A rollback
				// leaves the record: it does not make an unsigned release acceptable.
				c.SignatureVerified = ch.Signature
			}
			if c.BinaryPath, c.Binaries = ch.Executable, ch.Binaries; ch.Instance == "" || c.Service == "" {
				c.Service = ch.Service.Unit
			}
			setChecksums(&c, ch, after)
			c.AddBackup(state.Backup{Version: out.From.String(), Timestamp: filepath.Base(run.BackupPath), Path: run.BackupPath})
			if !ch.Health.Skip { // else nothing shows that it does not fail again
				c.ClearFailed(out.To.String())
			}
			f.Components[out.Name] = c
		case run.Operation == Apply && out.Started && !WasInterrupted(out.Error):
			c := f.Components[out.Name]
			if c.CurrentVersion == "" && out.Status == RolledBack { // nobody adopted it
				c.CurrentVersion, c.BinaryPath, c.Binaries, c.Service = out.From.String(), ch.Executable, ch.Binaries, ch.Service.Unit
				setChecksums(&c, ch, before)
			}
			c.MarkFailed(state.FailedVersion{Version: out.To.String(), Reason: out.Error, FailedAt: run.StartedAt.UTC(), RunID: run.ID})
			f.Components[out.Name] = c
		}
	})
}

// recordInstance keeps the version of each instance. The files of those on this
// host are shared: when one instance was brought back, they are the old ones, and so
// they may be where it was brought back and is not healthy.
func recordInstance(f *state.File, run Header, ch Change, out Outcome) {
	if ch.Instance == "" {
		return
	}
	c := f.Components[out.Name]
	arrived, returned := out.arrived(run.Operation), out.returned(run.Operation)
	putBack := !arrived && !ch.remote() && (returned || c.CurrentVersion == out.To.String() && ch.filesAre(before))
	if !arrived && !returned && !putBack {
		return // nobody knows
	}
	if putBack {
		c.CurrentVersion, c.PreviousVersion = out.From.String(), ""
		for _, b := range c.Backups {
			if b.Timestamp != filepath.Base(run.BackupPath) && b.Version != c.CurrentVersion {
				c.PreviousVersion = b.Version
			}
		}
		setChecksums(&c, ch, before)
	}
	if c.Instances == nil {
		c.Instances = map[string]string{}
	}
	switch {
	case arrived:
		c.Instances[ch.Instance] = out.To.String()
	case returned:
		c.Instances[ch.Instance] = out.From.String()
	}
	f.Components[out.Name] = c
}

// forgetGone drops the instances that there are no more: whoever goes by what is
// remembered would look for them. One that is left alone is changed as the component.
func forgetGone(f *state.File, run Header, ch Change, out Outcome) {
	c := f.Components[out.Name]
	if len(ch.Listed) == 0 {
		return
	}
	maps.DeleteFunc(c.Instances, func(name, _ string) bool { return !slices.Contains(ch.Listed, name) })
	if _, noted := c.Instances[ch.Listed[0]]; noted && ch.Instance == "" && out.arrived(run.Operation) {
		c.Instances[ch.Listed[0]] = out.To.String()
	}
}

// setChecksums keeps the digests of a component's files, of those that the change
// swapped the one that of says.
func setChecksums(c *state.Component, ch Change, of func(Swap) string) {
	c.Checksums = map[string]string{}
	for name, path := range ch.Binaries {
		for _, s := range ch.Swaps {
			if s.Path == path {
				c.Checksums[name] = of(s)
			}
		}
		if sum, err := hostfs.Digest(path); c.Checksums[name] == "" && err == nil {
			c.Checksums[name] = sum
		}
		if path == ch.Executable {
			c.Checksum = c.Checksums[name]
		}
	}
}

// State is the state file to change. One that cannot be read is moved aside and
// built anew from what is installed; so is one that is missing beside a file
// that was moved aside, as a crash in between leaves it.
func (b *Books) State(ctx context.Context) (*state.File, error) {
	path := b.Root.State()
	f, err := state.Load(path)
	var corrupt *state.CorruptError
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, fs.ErrNotExist):
		if _, aside := os.Lstat(path + ".corrupt"); aside != nil || b.Rebuild == nil {
			return state.New(), nil
		}
	case errors.As(err, &corrupt) && b.Rebuild != nil:
		to, err := state.MoveAside(b.Host, path)
		if err != nil {
			return nil, err
		}
		if b.Notice != nil {
			b.Notice(fmt.Sprintf("%v; it is kept as %s", corrupt, to))
		}
	default:
		return nil, err
	}
	if f, err = b.Rebuild(ctx); err != nil {
		return nil, fmt.Errorf("rebuild the state file: %w", err)
	}
	f.LastUpdated = b.Now().UTC().Truncate(time.Second)
	return f, state.Save(b.Host, path, f)
}

// editState loads, changes and saves the state file.
func (b *Books) editState(ctx context.Context, edit func(*state.File)) error {
	f, err := b.State(ctx)
	if err != nil {
		return err
	}
	if f.Components == nil {
		f.Components = map[string]state.Component{}
	}
	edit(f)
	f.LastUpdated = b.Now().UTC().Truncate(time.Second)
	return state.Save(b.Host, b.Root.State(), f)
}

// Finish writes the run's result and summary and removes backup points and runs
// that are no longer to be kept.
func (b *Books) Finish(ctx context.Context, run Header, res Result) error {
	if run.Operation != Restart {
		if err := b.summarize(ctx, run, res); err != nil {
			return err
		}
	}
	if err := b.pruneRuns(ctx, run); err != nil {
		return fmt.Errorf("remove old runs: %w", err)
	}
	return nil
}

func (b *Books) summarize(ctx context.Context, run Header, res Result) error {
	data, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(b.Root.RunsDir(), run.ID, "result.json")
	if err := b.Host.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := b.Host.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return err
	}
	// The run first: it was made, whatever becomes of old backups.
	if err := b.editState(ctx, func(f *state.File) { f.AddRun(res.Summary()) }); err != nil {
		return err
	}
	removed, err := b.prune(ctx, run)
	if len(removed) > 0 {
		err = errors.Join(err, b.editState(ctx, func(f *state.File) { f.DropBackups(removed) }))
	}
	if err != nil {
		return fmt.Errorf("remove old backups: %w", err)
	}
	return nil
}

// Summary is what the state file keeps of a run.
func (r *Result) Summary() state.RunSummary {
	sum := state.RunSummary{
		ID: r.ID, Timestamp: r.StartedAt, ComponentsUpgraded: []string{}, Status: r.Status,
		DurationSeconds: int(r.Duration + 0.5), TriggeredBy: r.Trigger, Operation: string(r.Operation),
	}
	for _, o := range r.Components {
		if o.arrived(r.Operation) {
			sum.ComponentsUpgraded = append(sum.ComponentsUpgraded, o.Name)
		}
	}
	return sum
}

func (b *Books) prune(ctx context.Context, run Header) ([]string, error) {
	if b.Retain <= 0 {
		return nil, nil
	}
	db, err := history.OpenReadOnly(ctx, b.Root.History())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.List(ctx, history.Filter{Status: history.Success})
	if err != nil {
		return nil, err
	}
	offered := map[string]bool{}
	for _, r := range rows {
		offered[filepath.Base(r.BackupPath)] = true
	}
	return backup.Prune(b.Host, b.Root.Backups(), backup.Keep{Points: b.Retain, Own: run.ID, Offered: offered})
}

// ReadResult reads what a run recorded as its result; fs.ErrNotExist where the
// run wrote none.
func ReadResult(root layout.Root, id string) (*Result, error) {
	path := filepath.Join(root.RunsDir(), id, "result.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var res Result
	if err := json.Unmarshal(data, &res); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &res, nil
}
