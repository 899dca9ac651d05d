package client

import (
	"context"

	"github.com/perigee-network/perigee"
)

// Status tells what the node is and does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	err := c.do(ctx, get("client.Status", "/v1/status"), &out)
	return out, err
}

// Peers lists connected peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	var out []Peer
	err := c.do(ctx, get("client.Peers", "/v1/peers"), &out)
	return out, err
}

// Connect makes the node dial a multiaddr that ends in /p2p/ID.
func (c *Client) Connect(ctx context.Context, addr string) error {
	k, err := post("client.Connect", "/v1/peers/connect").json(map[string]string{"addr": addr})
	if err != nil {
		return err
	}
	return c.do(ctx, k, nil)
}

// Providers lists known offers from a region or below it; "" means anywhere.
func (c *Client) Providers(ctx context.Context, region string) ([]perigee.Offer, error) {
	var out []perigee.Offer
	err := c.do(ctx, get("client.Providers", "/v1/providers").with("region", region), &out)
	return out, err
}

// Provider returns the offer of one provider; "self" is the node itself.
func (c *Client) Provider(ctx context.Context, id string) (perigee.Offer, error) {
	var out perigee.Offer
	err := c.do(ctx, get("client.Provider", "/v1/providers/"+segment(id)), &out)
	return out, err
}

// Publish makes data a dataset of the node's account.
func (c *Client) Publish(ctx context.Context, req PublishRequest) (perigee.Dataset, error) {
	var out perigee.Dataset
	k, err := post("client.Publish", "/v1/datasets").json(req)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, k, &out)
	return out, err
}

// Datasets lists the datasets that the node knows.
func (c *Client) Datasets(ctx context.Context) ([]DatasetSummary, error) {
	var out []DatasetSummary
	err := c.do(ctx, get("client.Datasets", "/v1/datasets"), &out)
	return out, err
}

// Dataset returns a dataset with its parts.
func (c *Client) Dataset(ctx context.Context, owner, name string) (perigee.Dataset, error) {
	var out perigee.Dataset
	err := c.do(ctx, get("client.Dataset", "/v1/datasets/"+segment(owner)+"/"+segment(name)), &out)
	return out, err
}

// Join adds parts that the node holds to somebody's dataset.
func (c *Client) Join(ctx context.Context, owner, name string, req JoinRequest) (perigee.Dataset, error) {
	var out perigee.Dataset
	k, err := post("client.Join", "/v1/datasets/"+segment(owner)+"/"+segment(name)+"/join").json(req)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, k, &out)
	return out, err
}

// Receipt returns a receipt and whether it is valid.
func (c *Client) Receipt(ctx context.Context, id perigee.CID) (ReceiptReport, error) {
	var out ReceiptReport
	err := c.do(ctx, get("client.Receipt", "/v1/receipts/"+segment(id.String())), &out)
	return out, err
}

// VerifyReceipt has the node check a receipt in any form that ParseReceipt
// reads. CheckReceipt does the same without a node.
func (c *Client) VerifyReceipt(ctx context.Context, receipt []byte) (ReceiptReport, error) {
	var out ReceiptReport
	k := post("client.VerifyReceipt", "/v1/receipts/verify").set("Content-Type", "application/octet-stream")
	k.body, k.length = newBytes(receipt)
	err := c.do(ctx, k, &out)
	return out, err
}
