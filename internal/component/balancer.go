package component

// Balancer is the load balancer in front of a component's instances.
type Balancer struct {
	Type    string `yaml:"type" json:"type"`                           // haproxy | nginx | consul | exec
	Socket  string `yaml:"socket,omitempty" json:"socket,omitempty"`   // haproxy: its runtime API, a Unix socket
	Address string `yaml:"address,omitempty" json:"address,omitempty"` // haproxy: its runtime API over TCP, host:port; consul: the agent's address
	Backend string `yaml:"backend,omitempty" json:"backend,omitempty"` // haproxy: the backend; nginx: the upstream
	Server  string `yaml:"server,omitempty" json:"server,omitempty"`   // the instance's name there, {instance} when empty; nginx: host:port; consul: the service's ID
	Token   string `yaml:"token,omitempty" json:"token,omitempty"`     // consul: ACL token, ${SECRET:NAME}
	CA      string `yaml:"ca,omitempty" json:"ca,omitempty"`           // consul: PEM file of who may have signed the agent's certificate; those of the host when empty

	File   string   `yaml:"file,omitempty" json:"file,omitempty"`     // nginx: the file that holds the upstream
	Check  []string `yaml:"check,omitempty" json:"check,omitempty"`   // nginx: proves the configuration; [nginx, -t] when empty
	Reload []string `yaml:"reload,omitempty" json:"reload,omitempty"` // nginx: [nginx, -s, reload] when empty

	// Of an exec balancer. Status prints "admitted" or "drained" and, optionally,
	// after it the number of connections and of other servers that take traffic.
	Status []string `yaml:"status,omitempty" json:"status,omitempty"`
	Drain  []string `yaml:"drain,omitempty" json:"drain,omitempty"`
	Admit  []string `yaml:"admit,omitempty" json:"admit,omitempty"`

	DrainTimeout Duration `yaml:"drain_timeout,omitempty" json:"drain_timeout,omitempty"` // how long connections may take to end, 30 s when empty; then the upgrade goes on
	Stabilize    Duration `yaml:"stabilize,omitempty" json:"stabilize,omitempty"`         // how long an instance that was put back is watched before the next, 10 s when empty
}
