package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
)

// maxAnnounced is how many versions of a component are remembered, the newest.
const maxAnnounced = 20

// announced is the file of versions that were told, by component, oldest first.
type announced struct {
	Announced map[string][]string `json:"announced"`
}

func (n *Notifier) announcedPath() string { return filepath.Join(n.box.dir, "announced.json") }

// Fresh returns those of the components whose LatestVersion has not been announced
// yet, so that upgrade_available is sent once for a version and not once for each
// time that somebody looks. Call commit when the message is queued. Where no
// channel wants the event nothing is fresh, so that one that is enabled later gets
// to know what there is.
//
// A file that cannot be read is moved aside and begun anew: to be told twice is
// better than never.
func (n *Notifier) Fresh(list []Component) (fresh []Component, commit func() error, err error) {
	commit = func() error { return nil }
	if !slices.ContainsFunc(n.conf.Channels, func(ch config.Channel) bool { return ch.Wants(UpgradeAvailable) }) {
		return nil, commit, nil
	}
	seen, err := n.announced()
	if err != nil {
		return nil, commit, err
	}
	for _, c := range list {
		if !slices.Contains(seen.Announced[c.Name], c.LatestVersion) {
			fresh = append(fresh, c)
		}
	}
	if len(fresh) == 0 {
		return nil, commit, nil
	}
	return fresh, func() error { return n.remember(fresh) }, nil
}

func (n *Notifier) announced() (announced, error) {
	empty := announced{Announced: map[string][]string{}}
	data, err := readSmall(n.announcedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	var a announced
	if err == nil {
		a, err = decodeAnnounced(data)
	}
	if err == nil {
		return a, nil
	}
	aside := n.announcedPath() + ".corrupt"
	n.log.Warn("what was announced cannot be read; it is moved aside, and all is announced once more", "file", n.announcedPath(), "to", aside, "error", err)
	return empty, n.box.host.Rename(n.announcedPath(), aside)
}

func decodeAnnounced(data []byte) (announced, error) {
	var a announced
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&a); err != nil {
		return a, err
	}
	if dec.More() {
		return a, errors.New("something follows the document")
	}
	if a.Announced == nil {
		return a, errors.New(`it has no "announced"`)
	}
	return a, nil
}

func (n *Notifier) remember(list []Component) error {
	if err := n.box.make(); err != nil {
		return err
	}
	a, err := n.announced() // another process may have written meanwhile
	if err != nil {
		return err
	}
	for _, c := range list {
		versions := slices.DeleteFunc(a.Announced[c.Name], func(v string) bool { return v == c.LatestVersion })
		versions = append(versions, c.LatestVersion)
		a.Announced[c.Name] = versions[max(0, len(versions)-maxAnnounced):]
	}
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := n.box.host.WriteFile(n.announcedPath(), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember what was announced: %w", err)
	}
	return nil
}
