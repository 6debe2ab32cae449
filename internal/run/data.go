package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Data says what a change does about what the component has collected.
type Data struct {
	Path   string         `json:"path"` // the data directory, links resolved
	Places []backup.Place `json:"places,omitempty"`
	// Fingerprint are the tests whose answers must be after the change as they were
	// before.
	Fingerprint []component.Test `json:"fingerprint,omitempty"`

	Copy    bool     `json:"copy,omitempty"`   // keep a copy in the backup point
	Name    string   `json:"name,omitempty"`   // of the copy, where an earlier change of the run keeps one too
	Method  string   `json:"method,omitempty"` // copy | prometheus | sqlite
	URL     string   `json:"url,omitempty"`    // of the snapshot API
	File    string   `json:"file,omitempty"`   // the database
	Exclude []string `json:"exclude,omitempty"`

	// From is the backup point whose copy the change itself puts in place, with the
	// old version: the way back through a one-way door.
	From     string   `json:"from,omitempty"`
	Restores []string `json:"restores,omitempty"` // the directories that it is put back to
}

// compareWait is how long a store that is ready may need to show all it has.
const compareWait = 30 * time.Second

// nameCopies gives every copy of a run a name of its own: the first of a component
// has its name, as it is the one that a rollback of the run goes back to; those of
// further steps add the version that the data is of.
func nameCopies(changes []Change) []Change {
	out := slices.Clone(changes)
	kept := map[string]bool{}
	for i := range out {
		ch := &out[i]
		if ch.Data == nil || !ch.Data.Copy {
			continue
		}
		if kept[ch.Set()] {
			d := *ch.Data
			d.Name = ch.Set() + "+" + ch.From.String()
			ch.Data = &d
		}
		kept[ch.Set()] = true
	}
	return out
}

// copyName is what the copy of a change's data is called in the backup point.
func (c *Change) copyName() string { return cmp.Or(c.Data.Name, c.Set()) }

// online reports whether the data is copied while the service runs.
func (d *Data) online() bool { return d.Method == "prometheus" || d.Method == "sqlite" }

// fingerprint takes the answers before the service stops and journals them, so
// that recovery can compare too. A service that does not run has none.
func (r *running) fingerprint(ctx context.Context, ch Change) error {
	d := ch.Data
	if d == nil || len(d.Fingerprint) == 0 || !ch.WasActive || ch.Health.Skip {
		return nil
	}
	if err := r.Host.Check("fingerprint", ch.Component); err != nil {
		return err
	}
	was := r.Prober.Fingerprint(ctx, ch.Health.Spec.Client, d.Fingerprint, r.Now())
	print := was
	if d.From != "" {
		print = health.Fingerprint{}
		set, err := r.dataSet(d.From, ch)
		if err != nil {
			return err
		}
		// The data will be as it was when the copy was taken.
		if len(set.Fingerprint) > 0 {
			if err := json.Unmarshal(set.Fingerprint, &print); err != nil {
				return fmt.Errorf("the fingerprint of the data in backup %s: %w", d.From, err)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.prints[ch.key()], r.was[ch.key()] = print, was
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepFingerprint, Done: true, Detail: fmt.Sprintf("%d answers to compare afterwards", print.Known())})
	if missing := print.Missing(); missing != "" {
		r.Logger.Info("not part of the fingerprint", "component", ch.Component, "missing", missing)
	}
	return r.noteOf(ch, StepFingerprint, note{Fingerprint: &print, Was: &was})
}

// compare proves that the component answers as it must after the change; after an
// undo, as it did before the run. The error is a LostDataError. One that is healthy
// at version and gives no answer is not taken for one that lost its data: that is
// told, and nothing is undone for it.
func (r *running) compare(ctx context.Context, ch Change, version string, prints map[string]health.Fingerprint) error {
	d := ch.Data
	print, ok := prints[ch.key()]
	if d == nil || !ok || print.Known() == 0 {
		return nil
	}
	diff, err := r.Prober.Compare(ctx, ch.Health.Spec.Client, d.Fingerprint, print, cmp.Or(r.Timeouts.Compare, compareWait))
	var silent *health.SilentError
	if errors.As(err, &silent) {
		return r.tellSilent(ctx, ch, version, silent)
	}
	if err != nil {
		return err
	}
	if len(diff) > 0 {
		return &health.LostDataError{Component: ch.Component, Differences: diff}
	}
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepFingerprint, Done: true, Detail: fmt.Sprintf("%d answers are as before", print.Known())})
	return nil
}

// tellSilent warns of data that nothing is known of, where what is asked for it is
// still healthy: the questions may have brought it down.
func (r *running) tellSilent(ctx context.Context, ch Change, version string, silent *health.SilentError) error {
	t, err := r.target(ch, version)
	if err != nil {
		return err
	}
	rep := r.prober(ch).Once(ctx, t)
	if err := ctx.Err(); err != nil {
		return err
	}
	if !rep.Healthy {
		return &UnhealthyError{Component: ch.Set(), Version: version, Report: rep}
	}
	silent.Component = ch.Set()
	r.warn("%v; it is healthy and stays: look whether its data is all there", silent)
	return nil
}

// copyData copies the data into the run's backup point. Online copies are made
// before the service stops, and where that fails the stopped directory is copied.
func (r *running) copyData(ctx context.Context, ch Change, stopped bool) error {
	d := ch.Data
	if d == nil || !d.Copy || r.copied[ch.key()] {
		return nil
	}
	if online := d.online() && ch.WasActive; !stopped && !online {
		return nil
	}
	point, err := r.backupPoint()
	if err != nil {
		return err
	}
	set := backup.DataSet{Name: ch.copyName(), Method: "copy", Path: d.Path, Places: d.Places, TakenAt: r.Now().UTC(), Exclude: d.Exclude}
	if print, ok := r.was[ch.key()]; ok {
		if set.Fingerprint, err = json.Marshal(print); err != nil {
			return err
		}
	}
	source := backup.DataSource(backup.ColdCopy)
	switch {
	case d.Method == "sqlite":
		set.Method, set.Replaces, source = d.Method, backup.SQLiteFiles(d.File), backup.SQLiteCopy(d.File)
	case d.Method == "prometheus" && !stopped:
		set.Method, source = d.Method, r.snapshot(d, ch)
	}
	return r.step(ctx, ch, StepData, func() (string, error) {
		got, err := backup.TakeData(ctx, r.Host, point, set, source, r.meter(ch, StepData, "copied so far"))
		var no *noSnapshotError
		if errors.As(err, &no) {
			return fmt.Sprintf("no snapshot (%v); the stopped directory is copied", no), nil
		}
		if err != nil {
			return "", err
		}
		r.copied[ch.key()] = true
		return fmt.Sprintf("%s of data kept in %s (%s)", size(got.Bytes), got.Files(), got.Method), nil
	})
}

// meterEvery is how often long work on data is told of.
const meterEvery = 5 * time.Second

// meter makes the listener of long work on data: onlookers are told now and then
// how much is done.
func (r *running) meter(ch Change, st Step, what string) func(bytes int64) {
	var done int64
	next := r.Now().Add(meterEvery)
	return func(n int64) {
		done += n
		if now := r.Now(); now.After(next) {
			next = now.Add(meterEvery)
			r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: st, Detail: size(done) + " " + what})
		}
	}
}

func size(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// noSnapshotError says that the snapshot API is not to be had.
type noSnapshotError struct{ reason string }

func (e *noSnapshotError) Error() string { return e.reason }

// snapshot copies a snapshot that Prometheus makes of itself: hard links of its
// blocks, and a block of what is in memory. See
// https://prometheus.io/docs/prometheus/latest/querying/api/#snapshot.
func (r *running) snapshot(d *Data, ch Change) backup.DataSource {
	return func(ctx context.Context, h *hostfs.Host, set *backup.DataSet, tell func(int64)) (hostfs.Bulked, error) {
		if err := h.Check("snapshot", d.URL); err != nil {
			return hostfs.Bulked{}, err
		}
		status, body, err := r.Prober.Post(ctx, ch.Health.Spec.Client, d.URL)
		if err != nil {
			return hostfs.Bulked{}, &noSnapshotError{err.Error()}
		}
		var doc struct {
			Data  struct{ Name string }
			Error string
		}
		jsonErr := json.Unmarshal(body, &doc)
		if status != 200 || jsonErr != nil || !snapshotName.MatchString(doc.Data.Name) {
			reason := doc.Error
			if reason == "" {
				reason = fmt.Sprintf("it answered %d %.100q", status, body)
			}
			return hostfs.Bulked{}, &noSnapshotError{reason}
		}
		name := filepath.Join("snapshots", doc.Data.Name)
		if err := ownDirectories(set.Path, name); err != nil {
			return hostfs.Bulked{}, &noSnapshotError{err.Error()}
		}
		got, err := backup.ImageCopy(filepath.Join(set.Path, name))(ctx, h, set, tell)
		return got, errors.Join(err, h.RemoveAllIn(set.Path, name))
	}
}

// snapshotName is what Prometheus calls a snapshot: a time and a number.
var snapshotName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// ownDirectories insists that name below dir, and each part of its path, is a
// directory and no link. The answer that names it and the directory are the
// component's, which may be hostile: what it leads to is read and removed by root.
func ownDirectories(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for part := name; part != "."; part = filepath.Dir(part) {
		st, err := root.Lstat(part)
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fmt.Errorf("%s: expected a directory, found %s", filepath.Join(dir, part), st.Mode().Type())
		}
	}
	return nil
}

// putData puts the data of an older backup point in place, with the old version.
func (r *running) putData(ctx context.Context, ch Change) error {
	if ch.Data == nil || ch.Data.From == "" {
		return nil
	}
	r.dirty[ch.key()] = true
	return r.step(ctx, ch, StepRestore, func() (string, error) {
		set, err := r.dataSet(ch.Data.From, ch)
		if err != nil {
			return "", err
		}
		err = backup.RestoreData(ctx, r.Host, set, r.meter(ch, StepRestore, "put back so far"))
		if errors.As(err, new(*backup.UntouchedError)) {
			delete(r.dirty, ch.key()) // there is nothing to take back
		}
		return "the data of backup " + ch.Data.From, err
	})
}

func (r *running) dataSet(stamp string, ch Change) (*backup.DataSet, error) {
	p, err := backup.Open(r.Root.Backups(), stamp)
	if err != nil {
		return nil, err
	}
	set, err := p.Data(ch.Set())
	if err == nil && set == nil {
		err = fmt.Errorf("backup %s holds no data of %s", stamp, ch.Set())
	}
	return set, err
}

// takeBack puts this run's copy of the data back during an undo; false when
// there is none.
func (r *running) takeBack(ctx context.Context, ch Change) (bool, error) {
	if ch.Data == nil || !ch.Data.Copy {
		return false, nil
	}
	p, err := r.backupPoint()
	if err != nil {
		return false, err
	}
	set, err := p.Data(ch.copyName())
	if err != nil || set == nil {
		return false, err
	}
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepRestore, Detail: "the data as it was before"})
	err = backup.RestoreData(ctx, r.Host, set, r.meter(ch, StepRestore, "put back so far"))
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepRestore, Done: true, Detail: "the data is as it was before", Err: err})
	return err == nil, err
}

// restoring reports whether data was being put back when a run was cut off: what is
// there may be half of it.
func (r *running) restoring(ch Change) bool {
	if ch.Data == nil {
		return false
	}
	return slices.ContainsFunc(ch.Data.dirs(), backup.Restoring)
}

// dirs are the directories that hold data, or that it is put back to.
func (d *Data) dirs() []string {
	dirs := slices.Clone(d.Restores)
	if d.Path != "" {
		dirs = append(dirs, d.Path)
	}
	for _, pl := range d.Places {
		dirs = append(dirs, pl.Path)
	}
	return dirs
}

// clearData removes what a restore put aside in the directories of the data.
func (r *running) clearData(ch Change) error {
	if ch.Data == nil {
		return nil
	}
	var err error
	for _, dir := range ch.Data.dirs() {
		err = errors.Join(err, backup.DropReplaced(r.Host, dir))
	}
	return err
}

// NotStartedError says that the old version was put back and left stopped: what the
// new one did to the data is for good, and there is no copy of the data as it was.
type NotStartedError struct {
	Component string // with its instance
	Old, New  string
}

func (e *NotStartedError) Error() string {
	return fmt.Sprintf("%s %s is in place and was not started: %s has been at work on its data, the way back through that door needs the data as it was, and no copy of it was kept; "+
		"put the data back from a backup of your own and start it, or go forward to %s again", e.Component, e.Old, e.New, e.New)
}

// Next is what to type.
func (e *NotStartedError) Next() string {
	name, _, _ := strings.Cut(e.Component, "@")
	return fmt.Sprintf("observability-upgrade restart --component=%s, once its data is that of %s again; or: observability-upgrade apply --component=%s@%s --force", name, e.Old, name, e.New)
}
