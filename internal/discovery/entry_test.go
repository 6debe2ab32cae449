package discovery

import (
	"fmt"
	"net"
	"strconv"
)

func (e entry) healthURL() string {
	path := e.path
	if path == "" {
		path = "/-/ready"
	}
	return fmt.Sprintf("http://%s%s", net.JoinHostPort(e.address, strconv.Itoa(e.port)), path)
}

// consulMeta is what a person would register; the address itself says the rest.
func (e entry) consulMeta() map[string]string {
	m := map[string]string{}
	if e.unit != "" {
		m["unit"] = e.unit
	}
	if e.server != "" {
		m["server"] = e.server
	}
	if e.path != "" {
		m["health_url"] = e.healthURL()
	}
	return m
}
