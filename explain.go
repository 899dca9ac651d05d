package perigee

// Explanation says why a job's parts were placed as they were: the answer of
// `perigee job explain`.
type Explanation struct {
	Parts      int               `json:"parts"`
	Bytes      int64             `json:"bytes" doc:"input bytes of all parts"`
	Transfer   int64             `json:"transfer" doc:"input bytes that this placement moves between nodes"`
	Price      Amount            `json:"price" doc:"micro-credits for all executions"`
	Candidates []CandidateReport `json:"candidates"`
	Unplaced   []UnplacedPart    `json:"unplaced,omitempty"`
}

// CandidateReport is what the planner thought of one provider.
type CandidateReport struct {
	Provider   PeerID  `json:"provider"`
	Region     string  `json:"region"`
	Class      string  `json:"class"`
	Slots      int     `json:"slots"`
	Price      Amount  `json:"price" doc:"micro-credits per execution"`
	LocalBytes int64   `json:"local_bytes" doc:"input bytes it holds already"`
	Assigned   int     `json:"assigned" doc:"parts placed there"`
	Score      float64 `json:"score" doc:"mean cost in seconds of the parts placed there, or of its best part if none; lower is better"`
	Rule       string  `json:"rule,omitempty" doc:"the rule that refused it: region, exclude, engine, resources, bid, silent, distrusted, price, transfer, class"`
	Reason     string  `json:"reason,omitempty" doc:"that refusal in words, with figures"`
}

// UnplacedPart is a part that no candidate may or can take, and why.
type UnplacedPart struct {
	Part   int    `json:"part"`
	Reason string `json:"reason"`
}
