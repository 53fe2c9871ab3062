package agentkey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/agentkey-dev/agentkey-go"
)

// openAdministration is an example's scene with an owner that the Manager keeps.
func openAdministration() (exampleScene, agentkey.Actor) {
	s, ctx := openExample(), context.Background()
	org := must(s.CreateOrganization(ctx, agentkey.Operator("setup"), agentkey.CreateOrganizationInput{Name: "Beta", Owner: "olga"}))
	return s, must(s.Authenticate(ctx, org.Token.Secret, agentkey.RequestContext{}))
}

// A role counts from the next call on, and a removed administrator's tokens end at
// once. The last owner stays.
func ExampleManager_UpdateAdministrator() {
	s, owner := openAdministration()
	ctx := context.Background()
	carol := must(s.AddAdministrator(ctx, owner, agentkey.AddAdministratorInput{Label: "carol", Role: agentkey.RoleAuditor}))
	role := agentkey.RoleApprover
	must(s.UpdateAdministrator(ctx, owner, carol.ID, agentkey.UpdateAdministratorInput{Role: &role}))
	fmt.Println(s.RemoveAdministrator(ctx, owner, owner.ID))
	fmt.Println(s.RemoveAdministrator(ctx, owner, carol.ID))
	for _, a := range must(s.Administrators(ctx, owner, agentkey.ListInput{})) {
		fmt.Println(a.Label, a.Role)
	}
	// Output:
	// conflict: the organization would be left without an owner
	// <nil>
	// olga owner
}

// Everybody sees and ends their own tokens; an owner everybody's.
func ExampleManager_RevokeToken() {
	s, owner := openAdministration()
	ctx := context.Background()
	token := must(s.CreateToken(ctx, owner, agentkey.CreateTokenInput{Name: "laptop", ExpiresIn: 24 * time.Hour}))
	fmt.Println(s.RevokeToken(ctx, owner, token.Token.ID))
	for _, t := range must(s.Tokens(ctx, owner, agentkey.ListInput{Name: "laptop"})) {
		fmt.Println(t.Name, t.Revoked)
	}
	_, err := s.Authenticate(ctx, token.Secret, agentkey.RequestContext{})
	fmt.Println(err)
	// Output:
	// <nil>
	// laptop true
	// unauthenticated: unknown token
}

// An administrator sees the own organization, an operator the names of all.
func ExampleManager_UpdateOrganization() {
	s, owner := openAdministration()
	ctx := context.Background()
	must(s.UpdateOrganization(ctx, owner, "Beta Ltd"))
	fmt.Println(must(s.Organization(ctx, owner)).Name)
	for _, org := range must(s.Organizations(ctx, agentkey.Operator("on call"))) {
		fmt.Println(org.Name, org.Locked)
	}
	// Unordered output:
	// Beta Ltd
	// Acme false
	// Beta Ltd false
}

// An export has a line of JSON for each event, just as it is signed, and is
// verified without the database.
func ExampleManager_Export() {
	s, ctx := openExample(), context.Background()
	auditor := s.admin
	auditor.Role = agentkey.RoleAuditor
	var file bytes.Buffer
	fmt.Println(s.Export(ctx, auditor, &file))
	fmt.Println(bytes.Count(file.Bytes(), []byte("\n")) > 5, bytes.Contains(file.Bytes(), []byte(s.Installation())))
	// Output:
	// <nil>
	// true true
}

// Run does the work of these by itself. A host with a scheduler of its own calls
// them instead, as often as it likes.
func ExampleManager_Sweep() {
	s, ctx := openExample(), context.Background()
	fmt.Println(s.Sweep(ctx), s.Retain(ctx))
	owner := s.admin
	owner.Role = agentkey.RoleOwner
	fmt.Println(must(s.Retention(ctx, owner)).Removed) // nobody has set a policy
	// Output:
	// <nil> <nil>
	// 0
}

// Run returns when its context ends.
func ExampleManager_Run() {
	s := openExample()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	stop()
	// Nil, or that it ended before it had begun.
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	fmt.Println("ended")
	// Output: ended
}
