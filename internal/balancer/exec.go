package balancer

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// commands is a balancer that commands of the administrator's drive.
type commands struct {
	spec   component.Balancer
	server string
	o      Options
}

func (c *commands) run(ctx context.Context, words []string) (string, error) {
	words = put(words, c.server)
	out, err := c.o.Exec(ctx, words, commandLimit)
	if err != nil {
		return out, fmt.Errorf("`%s`: %w: %.200q", strings.Join(words, " "), err, strings.TrimSpace(out))
	}
	return out, nil
}

// State runs the status command, which prints "admitted" or "drained" and may
// add the number of sessions and of other servers.
func (c *commands) State(ctx context.Context) (State, error) {
	out, err := c.run(ctx, c.spec.Status)
	if err != nil {
		return State{}, err
	}
	return parseStatus(out, strings.Join(c.spec.Status, " "))
}

func parseStatus(out, command string) (State, error) {
	st := State{Up: true, Sessions: -1, Others: -1, Detail: strings.TrimSpace(out)}
	words := strings.Fields(out)
	bad := fmt.Errorf("`%s` printed %.100q, expected: admitted|drained [SESSIONS [OTHERS]]", command, strings.TrimSpace(out))
	if len(words) == 0 || len(words) > 3 || words[0] != "admitted" && words[0] != "drained" {
		return st, bad
	}
	st.Admitted = words[0] == "admitted"
	for i, dst := range []*int{&st.Sessions, &st.Others} {
		if len(words) > i+1 {
			n, err := strconv.Atoi(words[i+1])
			if err != nil || n < 0 {
				return st, bad
			}
			*dst = n
		}
	}
	return st, nil
}

func (c *commands) Drain(ctx context.Context) error {
	_, err := c.run(ctx, c.spec.Drain)
	return err
}

func (c *commands) Admit(ctx context.Context) error {
	_, err := c.run(ctx, c.spec.Admit)
	return err
}
