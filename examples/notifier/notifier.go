// Package notifier is an example of an agentkey.Notifier of one's own: it posts
// each notification as JSON to a webhook.
//
// The Manager writes a notification in the transaction that it reports, and calls
// the Notifier later, from Run: at least once, and again after a growing delay
// when it answers an error. So a Notifier needs no queue and no retries; whoever
// receives twice tells it by the notification's ID.
package notifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
)

// Webhook posts notifications to a URL. It is safe for concurrent use. Make one
// with New.
type Webhook struct {
	url    string
	client *http.Client
}

var _ agentkey.Notifier = (*Webhook)(nil)

// New returns a Webhook for a URL that the operator chose; a URL from anywhere
// else would need a check of the address that is dialed. The client should not
// follow redirects.
func New(url string, client *http.Client) *Webhook {
	return &Webhook{url: url, client: client}
}

// Notify posts n. The ID is also the header Idempotency-Key. Errors do not name
// the URL, which for many services is a secret.
func (w *Webhook) Notify(ctx context.Context, n agentkey.Notification) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("notifier: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("notifier: the URL is not valid")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", n.ID)
	res, err := w.client.Do(req)
	if err != nil {
		return errors.New("notifier: the webhook could not be reached")
	}
	_ = res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("notifier: the webhook answered %d", res.StatusCode)
	}
	return nil
}
