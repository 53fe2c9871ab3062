package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Keys is the state of an organization's data keys. It holds ids, never a key.
type Keys struct {
	Provider    string       `json:"provider"` // the id of the key provider's current key
	Keys        []DataKey    `json:"keys"`
	Rewrap      int          `json:"rewrap"`  // data keys that another key than the current one wraps
	Counted     bool         `json:"counted"` // whether values and rows were counted
	Reseal      int64        `json:"reseal"`  // values and rows under a key that is not active
	Resealing   *Rotation    `json:"resealing"`
	Destruction *Destruction `json:"destruction"`
}

// DataKey is one of them.
type DataKey struct {
	ID        string    `json:"id"`
	Purpose   string    `json:"purpose"`
	State     string    `json:"state"`
	Lifecycle string    `json:"lifecycle"` // active, deactivated or destroyed, as in NIST SP 800-57
	CreatedAt time.Time `json:"createdAt"`
	Provider  string    `json:"provider"`
	Rewrap    bool      `json:"rewrap"`
	Seals     int64     `json:"seals"`
	MaxSeals  int64     `json:"maxSeals"`
	Values    int64     `json:"values"`
	Rows      int64     `json:"rows"`
}

// Rotation is how far a re-sealing is.
type Rotation struct {
	RequestedAt time.Time  `json:"requestedAt"`
	Done        int64      `json:"done"`
	Total       int64      `json:"total"`
	UpdatedAt   *time.Time `json:"updatedAt"`
}

// DestructionPlan says what destroying the organization would destroy.
type DestructionPlan struct {
	Organization string   `json:"organizationId"`
	Name         string   `json:"name"`
	DataKeys     []string `json:"dataKeys"`
	OuterKeys    []string `json:"outerKeys"`
	Confirmation string   `json:"confirmation"`
}

// Destruction is what became of a destroyed organization: Pending until none of the
// outer keys is there any more, with which backups can be opened.
type Destruction struct {
	DestroyedAt time.Time  `json:"destroyedAt"`
	Pending     bool       `json:"pending"`
	OuterKeys   []OuterKey `json:"outerKeys"`
}

// OuterKey is a key of the provider: gone, held or unknown, and whether it wraps
// data keys that are needed.
type OuterKey struct {
	ID    string `json:"id"`
	State string `json:"state"`
	InUse bool   `json:"inUse"`
}

// Keys reads the state of the data keys. With count all rows and values are read
// to count them by their key.
func (a *Admin) Keys(ctx context.Context, count bool) (Keys, error) {
	q := url.Values{}
	if count {
		q.Set("count", "1")
	}
	var out data[Keys]
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: adminPath("keys"), query: q, again: true, slow: count}, &out)
	return out.Data, err
}

// RotateDataKeys makes the next data keys, of the purposes seal and row; without
// purposes of both.
func (a *Admin) RotateDataKeys(ctx context.Context, purposes ...string) (Keys, error) {
	body := map[string][]string{}
	if len(purposes) > 0 {
		body["purposes"] = purposes
	}
	return send[Keys](ctx, a, http.MethodPost, body, nil, "keys", "rotate")
}

// Reseal asks for everything to be sealed with the active keys. Keys says how far
// that is.
func (a *Admin) Reseal(ctx context.Context) (Keys, error) {
	return send[Keys](ctx, a, http.MethodPost, struct{}{}, nil, "keys", "reseal")
}

// PlanDestruction says what DestroyOrganization would destroy.
func (a *Admin) PlanDestruction(ctx context.Context) (DestructionPlan, error) {
	return get[DestructionPlan](ctx, a, "organization", "destruction")
}

// DestroyOrganization destroys the keys of everything that the organization has
// sealed, for ever. Name and confirmation are those of the plan.
func (a *Admin) DestroyOrganization(ctx context.Context, name, confirmation, reason string) (Destruction, error) {
	body := map[string]string{"name": name, "confirmation": confirmation}
	if reason != "" {
		body["reason"] = reason
	}
	return send[Destruction](ctx, a, http.MethodPost, body, nil, "organization", "destroy")
}
