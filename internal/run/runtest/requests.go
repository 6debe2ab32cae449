package runtest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Upgrade makes a request that brings components to new contents.
func (w *World) Upgrade(to map[string]string, order ...string) run.Request {
	w.T.Helper()
	var contents []string
	for _, name := range order {
		contents = append(contents, to[name])
	}
	return w.Steps(contents...)
}

// Steps makes a request of contents in their order; a component may come again.
func (w *World) Steps(contents ...string) run.Request {
	w.T.Helper()
	req := run.Request{Operation: run.Apply, Trigger: "manual", Plan: map[string]string{"note": "a plan"}}
	at := map[string]component.Version{}
	placed := map[string]string{}
	for _, content := range contents {
		words := strings.Fields(content)
		name := words[0]
		from, again := at[name]
		if !again {
			from = w.Version(name)
		}
		at[name] = component.MustParseVersion(words[1])
		staged := w.Root.Path("tmp/observability-upgrade", name+"-"+words[1])
		w.Write(filepath.Join(staged, name), content, 0o755)
		w.Write(filepath.Join(staged, name+"tool"), name+"tool "+words[1], 0o755)
		req.StagingDirs = append(req.StagingDirs, staged)
		ch := run.Change{
			Component: name, From: from, To: component.MustParseVersion(words[1]), WasActive: true,
			Service: service.Service{Name: name, Unit: name + ".service"}, Executable: w.Bin(name), RunsBinary: true,
			Binaries:  map[string]string{name: w.Bin(name), name + "tool": w.Bin(name + "tool")},
			Health:    w.health(name),
			Signature: &state.SignatureVerified{Type: "gpg", Key: "K", Version: words[1]},
		}
		for _, b := range []string{name, name + "tool"} {
			old, ok := placed[b]
			if !ok {
				old = w.digest(w.Bin(b))
			}
			placed[b] = w.digest(filepath.Join(staged, b))
			ch.Swaps = append(ch.Swaps, run.Swap{
				Kind: backup.Binary, Name: b, Path: w.Bin(b), Source: filepath.Join(staged, b), Beside: hostfs.Beside(w.Bin(b), "new"), Old: old, New: placed[b],
			})
		}
		req.Changes = append(req.Changes, ch)
		if again {
			continue
		}
		req.Subjects = append(req.Subjects, backup.Subject{
			Name: name, Version: ch.From.String(), Configs: []string{w.Root.Path("etc", name)},
			Binaries: []backup.Source{{Name: name, Path: w.Bin(name)}, {Name: name + "tool", Path: w.Bin(name + "tool")}},
		})
	}
	return req
}

// health is how a service is proved.
func (w *World) health(unit string) run.Health {
	settle, ready := w.Settle, w.Wait
	if settle == 0 {
		settle = time.Nanosecond
	}
	if ready == 0 {
		ready = 60 * time.Millisecond
	}
	return run.Health{Spec: health.Spec{Health: component.Health{
		URL: w.Server.URL + "/" + unit + "/-/ready", MetricsURL: w.Server.URL + "/" + unit + "/metrics",
		ExpectedMetric: program(unit) + "_build_info", Timeout: component.Duration(ready), Settle: component.Duration(settle),
	}}}
}

func (w *World) digest(path string) string {
	w.T.Helper()
	sum, err := hostfs.Digest(path)
	if err != nil {
		w.T.Fatal(err)
	}
	return sum
}

// Back makes the request that takes the newest upgrade of prom and am back,
// configuration included, as `rollback --previous` does.
func (w *World) Back() run.Request {
	w.T.Helper()
	points, err := backup.List(w.Root.Backups())
	if err != nil || len(points) == 0 {
		w.T.Fatalf("no backup to go back to: %v", err)
	}
	db, err := history.OpenReadOnly(context.Background(), w.Root.History())
	if err != nil {
		w.T.Fatal(err)
	}
	defer db.Close()
	_, rows, err := db.LastSuccessfulRun(context.Background())
	if err != nil {
		w.T.Fatal(err)
	}
	req := w.To(points[0])
	for i := range req.Changes {
		for _, r := range rows {
			if r.Component == req.Changes[i].Component {
				req.Changes[i].Undoes = append(req.Changes[i].Undoes, r.ID)
			}
		}
	}
	return req
}

// To makes a request that goes back to a backup point, whose bytes it takes.
func (w *World) To(p *backup.Point) run.Request {
	w.T.Helper()
	// The shape is that of an upgrade; only where the bytes come from differs.
	var contents []string
	for _, c := range p.Manifest.Components {
		contents = append(contents, c.Name+" "+c.Version)
	}
	req := w.Steps(contents...)
	req.Operation, req.StagingDirs, req.ContinueOnFailure = run.Rollback, nil, true
	for i := range req.Changes {
		ch := &req.Changes[i]
		c, _ := p.Component(ch.Component)
		ch.Swaps = nil
		for _, it := range c.Items {
			stored, path := p.File(it), it.Path
			if it.Kind == backup.Config {
				stored, path = filepath.Join(stored, "config.yml"), filepath.Join(path, "config.yml")
			}
			if was, want := w.digest(path), w.digest(stored); was != want {
				ch.Swaps = append(ch.Swaps, run.Swap{Kind: it.Kind, Name: it.Name, Path: path, Source: stored, Beside: hostfs.Beside(path, "new"), Old: was, New: want})
			}
		}
	}
	return req
}

// DataUnit is the unit that keeps data; see Keeps.
const DataUnit = "prom.service"

// Keeps gives prom data.
func (w *World) Keeps(samples string) {
	w.T.Helper()
	w.Write(filepath.Join(w.Data(DataUnit), "samples"), samples, 0o640)
	w.Write(filepath.Join(w.Data(DataUnit), "format"), "1.0.0", 0o644)
	w.Write(filepath.Join(w.Data(DataUnit), "lock"), "not data", 0o644)
}

// WithData has the changes of a request keep a copy of the data of prom, and
// recognise it by its samples.
func (w *World) WithData(req run.Request, takeBack bool) run.Request {
	for i := range req.Changes {
		req.Changes[i].TakeBack = takeBack
		req.Changes[i].Data = &run.Data{
			Path: w.Data(DataUnit), Copy: true, Exclude: []string{"lock"},
			Fingerprint: []component.Test{{Name: "samples", HTTP: &component.HTTPTest{URL: w.Server.URL + "/prom/samples", Match: `samples (\d+)`}}},
		}
	}
	return req
}

// WayBack makes the request of a rollback of prom to 1.0.0 with the data of a
// backup point.
func (w *World) WayBack(from string) run.Request {
	w.T.Helper()
	p, err := backup.Open(w.Root.Backups(), from)
	if err != nil {
		w.T.Fatal(err)
	}
	req := w.WithData(w.To(p), true)
	req.Changes[0].Data.From = from
	return req
}

// RollingBack makes a request that brings both instances back to the newest backup
// point.
func (w *World) RollingBack() run.Request {
	w.T.Helper()
	points, err := backup.List(w.Root.Backups())
	if err != nil || len(points) == 0 {
		w.T.Fatalf("no backup to go back to: %v", err)
	}
	back := w.To(points[0])
	req := w.Rolling("prom " + back.Changes[0].To.String())
	req.Operation, req.StagingDirs, req.ContinueOnFailure = run.Rollback, nil, true
	for i := range req.Changes {
		req.Changes[i].Swaps = append([]run.Swap{}, back.Changes[0].Swaps...)
	}
	return req
}

// Pair is a world with two instances of prom behind a balancer.
func Pair(t testing.TB) *World {
	t.Helper()
	w := New(t)
	w.InstallPair()
	return w
}

// InstallPair installs two instances of prom at 1.0.0, with their balancer.
func (w *World) InstallPair() {
	w.T.Helper()
	w.Balancer = &Balancer{Admitted: map[string]bool{"a": true, "b": true}, open: map[string]int{}, changed: w.lockedChange}
	w.Balancer.works = func(i string) bool { return w.Instance(i) != "" }
	w.Install("prom", "1.0.0")
	ctx := context.Background()
	if _, err := w.Stop(ctx, service.Service{Unit: "prom.service"}, 0); err != nil {
		w.T.Fatal(err)
	}
	for _, i := range []string{"a", "b"} {
		if err := w.Start(ctx, service.Service{Unit: "prom@" + i + ".service"}); err != nil {
			w.T.Fatal(err)
		}
	}
}

func (w *World) lockedChange(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed(what)
}

// Rolling makes a request that brings both instances to new contents, one after the
// other; to the first of several before the next.
func (w *World) Rolling(contents ...string) run.Request {
	req := w.Steps(contents...)
	steps := req.Changes
	req.Changes = nil
	for _, step := range steps {
		for _, i := range []string{"a", "b"} {
			ch := step
			ch.Instance, ch.Service = i, service.Service{Name: "prom@" + i, Unit: "prom@" + i + ".service"}
			ch.Health = w.health("prom@" + i)
			ch.Swaps = append([]run.Swap{}, step.Swaps...)
			ch.Rolling = &run.Rolling{Balancer: &component.Balancer{Stabilize: ch.Health.Spec.Health.Settle}, Server: i}
			req.Changes = append(req.Changes, ch)
		}
	}
	return req
}

// Restarting makes a request that restarts both instances.
func (w *World) Restarting(strategy run.Strategy) run.Request {
	req := w.Rolling("prom 1.0.0")
	req.Operation, req.Subjects, req.StagingDirs = run.Restart, nil, nil
	for i := range req.Changes {
		req.Changes[i].Swaps, req.Changes[i].Strategy = nil, strategy
	}
	return req
}

func (w *World) rebuildState(context.Context) (*state.File, error) {
	f := state.New()
	for path := range w.kept {
		name := filepath.Base(path)
		if strings.HasSuffix(name, "tool") {
			continue
		}
		f.Components[name] = state.Component{CurrentVersion: w.Version(name).String(), BinaryPath: path}
	}
	return f, nil
}
