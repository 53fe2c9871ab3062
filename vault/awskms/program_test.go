package awskms_test

import (
	"net/http/httptest"
	"testing"

	"github.com/agentkey-dev/agentkey-go/internal/programtest"
	"github.com/agentkey-dev/agentkey-go/vault/awskms/internal/kmstest"
)

// TestProgram vends with the program that ships the provider, whose SDK finds
// credentials and endpoint in its environment, and changes keys.
func TestProgram(t *testing.T) {
	t.Parallel()
	kms := service()
	server := httptest.NewServer(kms)
	t.Cleanup(server.Close)
	programtest.Vend(t, "./cmd/agentkey-awskms", "awskms", []string{
		"AGENTKEY_KEY_PROVIDER=awskms:" + ourKey, "AWS_ENDPOINT_URL_KMS=" + server.URL, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + kmstest.AccessKey, "AWS_SECRET_ACCESS_KEY=" + kmstest.SecretKey,
	}, programtest.Rotation{
		Both:   []string{"AGENTKEY_KEY_PROVIDER=awskms:" + otherKey + "," + ourKey},
		Only:   []string{"AGENTKEY_KEY_PROVIDER=awskms:" + otherKey},
		Retire: func() { kms.DeleteKey(ourKey) },
	}, kmstest.SecretKey)
}
