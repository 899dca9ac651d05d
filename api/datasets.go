package api

import (
	"context"
	"net/http"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// DatasetName is a dataset in a request's path. It is exported because huma
// reads the parameters of exported embedded fields only.
type DatasetName struct {
	Owner string `path:"owner" maxLength:"64" doc:"account that owns the dataset, the first 6 or more characters of it, or me"`
	Name  string `path:"name" maxLength:"63"`
}

// check refuses what cannot be a dataset before anybody is asked for it.
func (n *DatasetName) check() error {
	_, _, err := perigee.ParseDatasetName(n.Owner + "/" + n.Name)
	return err
}

// routeDatasets serves named data.
func (s *Server) routeDatasets() {
	d := s.cfg.Datasets
	type publish struct{ Body client.PublishRequest }
	route(s, op("Publish", http.MethodPost, "/v1/datasets", "datasets", "Publish or replace a dataset of this node's account", ""),
		func(ctx context.Context, in *publish) (*body[perigee.Dataset], error) {
			if err := checkRoots("body.parts", in.Body.Parts); err != nil {
				return nil, err
			}
			return answer(d.Publish(ctx, in.Body))
		})
	route(s, op("Datasets", http.MethodGet, "/v1/datasets", "datasets", "Datasets known to this node", ""),
		func(ctx context.Context, _ *none) (*body[[]client.DatasetSummary], error) { return answer(d.List(ctx)) })
	route(s, op("Dataset", http.MethodGet, "/v1/datasets/{owner}/{name}", "datasets", "A dataset with its parts", ""),
		func(ctx context.Context, in *DatasetName) (*body[perigee.Dataset], error) {
			if err := in.check(); err != nil {
				return nil, err
			}
			return answer(d.Show(ctx, in.Owner, in.Name))
		})
	type join struct {
		DatasetName
		Body client.JoinRequest
	}
	route(s, op("Join", http.MethodPost, "/v1/datasets/{owner}/{name}/join", "datasets", "Add parts held by this node to a dataset", "The dataset's owner decides."),
		func(ctx context.Context, in *join) (*body[perigee.Dataset], error) {
			if err := in.check(); err != nil {
				return nil, err
			}
			if err := checkRoots("body.parts", in.Body.Parts); err != nil {
				return nil, err
			}
			return answer(d.Join(ctx, in.Owner, in.Name, in.Body.Parts))
		})
}

// checkRoots refuses parts without a CID, which JSON writes as "".
func checkRoots(field string, parts []client.DatasetRoot) error {
	for i, p := range parts {
		if !p.CID.Defined() {
			return perigee.E("api.datasets", perigee.Invalid, "%s[%d].cid: the CID is empty", field, i)
		}
	}
	return nil
}
