package config

import (
	"errors"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Missing reports, with their places, the ${VARIABLE} of the policy and of the
// channels that are enabled which has does not know. Files that cannot be read have
// none: what is wrong with them is told by who loads them.
func Missing(root layout.Root, has func(variable string) bool) (policy, channels yamlfile.Errors) {
	look := func(text string) (string, bool, error) {
		var missing []string
		for _, m := range reference.FindAllString(text, -1) {
			name := strings.TrimSuffix(strings.TrimPrefix(m, "${"), "}")
			if variablePattern.MatchString(name) && !has(name) {
				missing = append(missing, m)
			}
		}
		if len(missing) > 0 {
			return text, false, errors.New(strings.Join(missing, ", "))
		}
		return text, false, nil
	}
	if n, _ := yamlfile.Load(root.Policy()); n != nil {
		if has("GITHUB_TOKEN") {
			n = without(n, "upstream", "github", "token")
		}
		_, policy = n.MapStrings(look)
	}
	if n, _ := yamlfile.Load(root.Notifications()); n != nil {
		_, channels = expandChannels(n, look)
	}
	return policy, channels
}
