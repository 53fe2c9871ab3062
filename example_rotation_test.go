package agentkey_test

import (
	"context"
	"fmt"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
)

// Everything is sealed with new keys, and the one before is destroyed. Run goes on
// with it by itself; a host with a scheduler of its own calls ContinueRotations.
func ExampleManager_Reseal() {
	s, ctx := openExample(), context.Background()
	owner := s.admin
	owner.Role = agentkey.RoleOwner
	must(s.RotateDataKeys(ctx, owner, agentkey.RotateDataKeysInput{}))
	asked := must(s.Reseal(ctx, owner))
	fmt.Println(asked.Resealing != nil)
	fmt.Println(must(s.ContinueRotations(ctx)))
	status := must(s.KeysStatus(ctx, owner, agentkey.KeysStatusInput{Count: true}))
	fmt.Println(status.Reseal, status.Resealing == nil)
	// Output:
	// true
	// true
	// 0 true
}

// Whoever trusts the former key that signs the log can check the handover.
func ExampleManager_RotateSigningKey() {
	s, ctx := openExample(), context.Background()
	trusted := must(audit.NewVerifiers(s.Manager.PublicKey()))
	r := must(s.RotateSigningKey(ctx, agentkey.Operator("on call")))
	present := must(agentkey.CheckHandover(trusted, r.Event, r.Receipt))
	fmt.Println(present == s.Manager.PublicKey(), len(s.Manager.PublicKeys()))
	// Output: true 2
}

// A destruction is confirmed by the plan that was read, and by the name.
func ExampleManager_DestroyOrganization() {
	s, ctx := openExample(), context.Background()
	owner := s.admin
	owner.Role = agentkey.RoleOwner
	plan := must(s.PlanDestruction(ctx, owner))
	d := must(s.DestroyOrganization(ctx, owner, agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation}))
	fmt.Println(d.Pending, d.Outer[0].State)
	_, err := s.Tools(ctx, s.admin, agentkey.ListInput{})
	fmt.Println(err)
	// Output:
	// true held
	// refused: organization is destroyed
}

// After a new key was put in front of the provider's old one every data key is
// wrapped by it, and the old one can go. What is sealed stays as it is.
func ExampleManager_RewrapDataKeys() {
	s, ctx := openExample(), context.Background()
	status := must(s.RewrapDataKeys(ctx, agentkey.Operator("on call")))
	for status.Rewrapping != nil {
		must(s.ContinueRotations(ctx))
		status = must(s.KeysStatus(ctx, agentkey.Operator("on call"), agentkey.KeysStatusInput{}))
	}
	fmt.Println(status.Rewrap)
	// Output: 0
}
