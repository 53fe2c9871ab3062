// Package awskms is a vault.KeyProvider over AWS KMS, which keeps the wrapping key
// and never gives it away. It uses the SDK of AWS, with its chain of credentials.
//
// A data key is encrypted by KMS together with a proof of its context, which is the
// encryption context too. Both are checked when it is unwrapped: the one by KMS, the
// other here. KMS writes the encryption context (ids, nothing secret) into
// CloudTrail.
//
// Keys are named by their ARN, which is also the provider's id of them. Aliases are
// not taken: who may move an alias would change the key, and who may write to the
// database could name a key of their own. Automatic rotation in KMS keeps the ARN
// and needs nothing; to change keys, name the new one first and the old after it.
package awskms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/internal/bound"
)

const (
	defaultTimeout = 2 * time.Second
	attempts       = 3
)

// ErrConfig says that a Config can't be used. The error says why.
var ErrConfig = errors.New("awskms: bad configuration")

// Config says which keys to use, and as whom.
type Config struct {
	// Keys are the ARNs of symmetric keys, arn:aws:kms:REGION:ACCOUNT:key/ID, all of
	// one region. The first wraps, all unwrap. Required.
	Keys []string

	// AWS is the SDK's configuration: credentials, endpoint, HTTP client. Its region
	// is that of the keys, whatever it says; its retries are the provider's own.
	AWS aws.Config

	// Timeout bounds every call of the provider with all its attempts. Zero: 2
	// seconds. At most a minute.
	Timeout time.Duration
}

// Provider is a vault.KeyProvider over keys in KMS. It is safe for concurrent use
// and prints as "[redacted]". Make one with New.
type Provider struct {
	vault.Redacted
	// service is a closure so that no walker by reflection reaches the credentials.
	service func() *service
}

type service struct {
	kms     *kms.Client
	keys    []string
	timeout time.Duration
}

var _ vault.KeyProvider = (*Provider)(nil)

var arn = regexp.MustCompile(`^arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]+$`)

// New checks the configuration and returns a Provider. It calls nobody: a key that
// can't be used shows at the first use.
func New(c Config) (*Provider, error) {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if len(c.Keys) == 0 || c.Timeout < 0 || c.Timeout > time.Minute {
		return nil, fmt.Errorf("%w: want the ARN of a key at least, and a timeout of at most a minute", ErrConfig)
	}
	region := ""
	for i, key := range c.Keys {
		parts := arn.FindStringSubmatch(key)
		switch {
		case parts == nil || len(key) > vault.MaxProviderKeyID:
			return nil, fmt.Errorf("%w: key %d is not the ARN of a key (an alias is not taken)", ErrConfig, i+1)
		case region != "" && parts[1] != region:
			return nil, fmt.Errorf("%w: key %d is of another region than the first", ErrConfig, i+1)
		case slices.Contains(c.Keys[:i], key):
			return nil, fmt.Errorf("%w: key %d is there twice", ErrConfig, i+1)
		}
		region = parts[1]
	}
	client := kms.NewFromConfig(c.AWS, func(o *kms.Options) {
		o.Region = region
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = attempts
			r.MaxBackoff = 300 * time.Millisecond // between spread pauses
		})
		// What is sent and answered holds keys; nothing of the SDK's logs it.
		o.ClientLogMode = 0
	})
	s := &service{kms: client, keys: slices.Clone(c.Keys), timeout: c.Timeout}
	return &Provider{service: func() *service { return s }}, nil
}

// Open makes the Provider that a program's settings describe; it has the form that
// the command line of the reference server takes. argument is the keys' ARNs, with
// commas between them. Everything else the SDK takes from where it does by default:
// its variables, its files, the machine's or the container's role.
func Open(ctx context.Context, argument string, _ func(string) (string, bool)) (vault.KeyProvider, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, errors.New("awskms: the settings of the AWS SDK can't be read")
	}
	p, err := New(Config{Keys: strings.Split(argument, ","), AWS: settings})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// CurrentKey returns the ARN of the key that wraps. It calls nobody.
func (p *Provider) CurrentKey(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return p.service().keys[0], nil
}

// WrapKey has key, 32 bytes, encrypted by the first key.
func (p *Provider) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	if err := ctx.Err(); err != nil {
		return vault.Wrapped{}, err
	}
	plain, err := bound.Append(make([]byte, 0, bound.Size), key, c)
	if err != nil {
		return vault.Wrapped{}, err
	}
	defer clear(plain)
	s := p.service()
	bounded, cancel := context.WithTimeoutCause(ctx, s.timeout, errSlow)
	defer cancel()
	out, err := s.kms.Encrypt(bounded, &kms.EncryptInput{
		KeyId: aws.String(s.keys[0]), Plaintext: plain, EncryptionContext: encryptionContext(c),
	})
	if err != nil {
		return vault.Wrapped{}, s.plainError(bounded, "Encrypt", s.keys[0], err)
	}
	if aws.ToString(out.KeyId) != s.keys[0] || len(out.CiphertextBlob) == 0 || len(out.CiphertextBlob) > vault.MaxBlob {
		return vault.Wrapped{}, fmt.Errorf("%w: awskms: Encrypt answered for another key, or with no ciphertext", vault.ErrUnavailable)
	}
	return vault.Wrapped{Provider: s.keys[0], Blob: out.CiphertextBlob}, nil
}

// UnwrapKey has w decrypted by the key that w names, if it is one of the provider's.
func (p *Provider) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := p.service()
	if !slices.Contains(s.keys, w.Provider) {
		return nil, s.unknown(w.Provider)
	}
	if len(w.Blob) == 0 || len(w.Blob) > vault.MaxBlob {
		return nil, fmt.Errorf("%w: %w", vault.ErrUnwrap, vault.ErrFormat)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, s.timeout, errSlow)
	defer cancel()
	out, err := s.kms.Decrypt(bounded, &kms.DecryptInput{
		KeyId: aws.String(w.Provider), CiphertextBlob: w.Blob, EncryptionContext: encryptionContext(c),
	})
	if err != nil {
		return nil, s.plainError(bounded, "Decrypt", w.Provider, err)
	}
	key, err := bound.Open(out.Plaintext, c)
	if err == nil && aws.ToString(out.KeyId) != w.Provider {
		clear(key)
		return nil, fmt.Errorf("%w: another key than the one asked for answered", vault.ErrUnwrap)
	}
	return key, err
}

// HoldsKey says whether KMS has the key, also when it is disabled or waits to be
// deleted. It needs the right kms:DescribeKey; without it, or for what is no ARN of a
// key, it fails with vault.ErrUnavailable.
func (p *Provider) HoldsKey(ctx context.Context, id string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !arn.MatchString(id) {
		return false, fmt.Errorf("%w: awskms: not the ARN of a key", vault.ErrUnavailable)
	}
	s := p.service()
	bounded, cancel := context.WithTimeoutCause(ctx, s.timeout, errSlow)
	defer cancel()
	out, err := s.kms.DescribeKey(bounded, &kms.DescribeKeyInput{KeyId: aws.String(id)})
	var missing *types.NotFoundException
	switch {
	case errors.As(err, &missing):
		return false, nil
	case err != nil:
		return false, s.plainError(bounded, "DescribeKey", id, err)
	case out.KeyMetadata == nil || aws.ToString(out.KeyMetadata.Arn) != id:
		return false, fmt.Errorf("%w: awskms: DescribeKey answered for another key", vault.ErrUnavailable)
	}
	return true, nil
}

// encryptionContext is what KMS binds, and what a policy may demand.
func encryptionContext(c vault.Context) map[string]string {
	return map[string]string{
		"agentkey:installation": c.Installation, "agentkey:organization": c.Organization,
		"agentkey:purpose": c.Purpose, "agentkey:key": c.Key,
	}
}

var errSlow = fmt.Errorf("%w: awskms: no answer in time", vault.ErrUnavailable)

// plainError says what KMS answered by the name that its API has for it, or by the
// status. The text of its answer, and the causes of what did not come to an answer,
// are not told: they hold addresses, and what was sent.
func (s *service) plainError(ctx context.Context, call, key string, err error) error {
	var invalid *types.InvalidCiphertextException
	var incorrect *types.IncorrectKeyException
	var missing *types.NotFoundException
	var named smithy.APIError
	var answered *smithyhttp.ResponseError
	switch {
	case errors.As(err, &invalid), errors.As(err, &incorrect):
		return vault.ErrUnwrap
	case errors.As(err, &missing):
		return fmt.Errorf("%w: need %s, which KMS does not have", vault.ErrUnknownKey, key)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &named) && code.MatchString(named.ErrorCode()):
		return fmt.Errorf("%w: awskms: %s was answered with %s", vault.ErrUnavailable, call, named.ErrorCode())
	case errors.As(err, &answered) && answered.HTTPStatusCode() != http.StatusOK:
		return fmt.Errorf("%w: awskms: %s was answered with status %d", vault.ErrUnavailable, call, answered.HTTPStatusCode())
	}
	return fmt.Errorf("%w: awskms: %s: KMS can't be reached, there are no credentials, or the answer is not one of KMS", vault.ErrUnavailable, call)
}

// code is what an API's names of errors look like.
var code = regexp.MustCompile(`^[A-Za-z]{1,64}$`)

// unknown names the key needed and those held.
func (s *service) unknown(need string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if need == "" || len(need) > vault.MaxProviderKeyID || strings.ContainsFunc(need, odd) {
		need = "a key without a proper id" // a database may say anything
	}
	return fmt.Errorf("%w: need %s, hold [%s]", vault.ErrUnknownKey, need, strings.Join(s.keys, " "))
}
