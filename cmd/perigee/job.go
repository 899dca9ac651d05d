package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/perigee-network/perigee"
)

func newJobCmd(a *app) *cobra.Command {
	return group("job", "Submit jobs and follow them",
		newJobSubmitCmd(a), newJobListCmd(a), newJobShowCmd(a), newJobLogsCmd(a), newJobResultsCmd(a),
		newJobCancelCmd(a), newJobExplainCmd(a), newJobWaitCmd(a))
}

// readJob reads a job file, or standard input for "-".
func readJob(a *app, file string) (*perigee.Job, error) {
	b, err := readLimited(a, file, perigee.MaxJobFile)
	if err != nil {
		return nil, err
	}
	job, err := perigee.ParseJob(b)
	if err != nil {
		return nil, perigee.E("job", perigee.KindOf(err), err, "%s", file)
	}
	check := *job // the node fills in the defaults
	if err := check.Normalize(); err != nil {
		return nil, perigee.E("job", perigee.KindOf(err), err, "%s", file)
	}
	return job, nil
}

// printJob prints where a job stands.
func printJob(w io.Writer, st *perigee.JobStatus) {
	state := string(st.State)
	if st.Error != nil {
		state += ": " + st.Error.Message
	}
	reused, exit := "", ""
	if st.Reused > 0 {
		reused = strconv.Itoa(st.Reused)
	}
	if st.ExitCode != 0 {
		exit = strconv.Itoa(st.ExitCode)
	}
	pairs(w,
		"job", st.ID,
		"name", st.Name,
		"state", state,
		"note", st.Note,
		"created", ago(st.Created),
		"took", took(&st.Created, st.Finished),
		"parts", fmt.Sprintf("%d of %d done", st.Done, st.Parts),
		"reused", reused,
		"exit code", exit,
		"cost", st.Cost.String()+" credits",
		"output", st.Output.String(),
	)
	if len(st.Executions) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(">PART", "STATE", "PROVIDER", ">ATTEMPTS", ">EXIT", ">READ", ">FETCHED", ">FUEL", ">TIME", "INPUT")
	for _, e := range st.Executions {
		part := strconv.Itoa(e.Part)
		if e.Merge {
			part = "merge"
		}
		state := string(e.State)
		if e.Reused {
			state = "reused"
		}
		if e.Error != nil {
			state += ": " + e.Error.Message
		}
		t.row(part, state, e.Provider.Short(), strconv.Itoa(e.Attempts), strconv.Itoa(e.ExitCode), bytesText(e.BytesRead),
			bytesText(e.BytesFetched), countText(e.Fuel), took(e.Started, e.Finished), e.Label)
	}
	t.print(w)
}
