package extension

// RunPath is the endpoint (POST, below a version like all others) that creates, attaches to, starts and waits for a
// container in one request. A client that gets anything but 101 from it (another engine, a proxy in between, settings
// that it does not take) makes the ordinary requests instead: nothing has happened then.
//
// The body is that of /containers/create. The query has name and platform as there, stdin, stdout, stderr and
// detachKeys of /containers/{id}/attach (none of the three: the container runs detached), condition of
// /containers/{id}/wait, and pid: the client's process.
//
// The connection must be a unix socket and pid its peer, for the container's streams come as a descriptor: the first
// RunMessage, a JSON object on a line of its own, carries a socket (SCM_RIGHTS) with what /containers/{id}/attach
// would have hijacked. A client that closes the connection before the start prevents it.
const RunPath = "/gantry/run"

// RunMessage is one message of the engine about a run, in this order: Created; then Failed, or for a detached container
// Started and for others Ended. The connection is closed after the last. One that ends before that means that the engine
// went away, and not the container.
type RunMessage struct {
	Created *RunCreated `json:",omitempty"`
	Started bool        `json:",omitempty"`
	Failed  *RunFailed  `json:",omitempty"`
	Ended   *RunEnded   `json:",omitempty"`
}

// RunCreated is what /containers/create answers.
type RunCreated struct {
	ID       string
	Warnings []string `json:",omitempty"`
}

// RunFailed is the answer of /containers/{id}/start. A container that removes itself is gone by then.
type RunFailed struct {
	Status  int // as HTTP has it
	Message string
}

// RunEnded is what /containers/{id}/wait answers.
type RunEnded struct {
	StatusCode int64
	Error      string `json:",omitempty"` // why the status is not known
}
