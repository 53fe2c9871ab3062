module github.com/agentkey-dev/agentkey-go/vault/internal/primitive/wycheproof

go 1.26.4

require (
	github.com/agentkey-dev/agentkey-go v0.0.0
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
	github.com/matryer/is v1.4.1
)

replace github.com/agentkey-dev/agentkey-go => ../../../..
