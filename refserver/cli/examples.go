package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// examples are lines that show each command at work, by its path. A line that
// begins with # says what the next one is for. No line holds a secret.
var examples = map[string]string{
	"serve": `# On this machine, with SQLite and a key that is made once:
agentkey serve
# With TLS:
agentkey serve --listen 0.0.0.0:8700 --tls-cert cert.pem --tls-key key.pem
# One of several, whose database is in AGENTKEY_DATABASE:
agentkey serve --key-file /etc/agentkey/encryption.key --schema agentkey --listen 10.0.0.5:8700 --behind-tls-proxy --trusted-proxy 10.0.0.0/24`,
	"doctor installation": `# With the settings of the server, as its user and on its machine:
agentkey doctor
agentkey doctor --database sqlite:/var/lib/agentkey/agentkey.db --key-file /etc/agentkey/encryption.key --json`,
	"doctor crypto": `# A hundred values of each organization are opened for a moment; or all of them:
agentkey doctor crypto
agentkey doctor crypto --all --json`,
	"audit accept-restore": `# After a backup was put back, with the settings of the server, which is stopped:
agentkey audit accept-restore --anchor file:/var/anchors --reason 'disk failed, backup of Sunday' --yes`,
	"demo": `agentkey demo`,
	"bench": `# This machine and its disk, with SQLite:
agentkey bench --agents 1000 --grants 5000 --events 100000
# The disk that the database will be on, and a plot:
agentkey bench --database sqlite:/var/lib/agentkey-bench/bench.db --svg bench.svg
# The Postgres on this machine that AGENTKEY_BENCH_DATABASE names, briefly, for programs:
agentkey bench --connections 1,64 --rounds 3 --duration 1s --json
# What growth costs:
agentkey bench --scale 1000,100000,1000000 --no-replay --duration 1s --svg growth.svg`,
	"bench-server":  `agentkey bench-server --database sqlite:bench.db --listen 127.0.0.1:0`,
	"keys generate": `agentkey keys generate --out encryption.key`,
	"keys split": `# For three people, of whom two together learn nothing:
agentkey keys split encryption.key ann.part bob.part cyd.part`,
	"keys join":   `agentkey keys join ann.part bob.part cyd.part --out encryption.key`,
	"orgs list":   `agentkey orgs list --json`,
	"orgs create": `agentkey orgs create Acme --owner ann@example.com`,

	"agent me":    `agentkey agent me`,
	"agent tools": `agentkey agent tools --json`,
	"agent request": `agentkey agent request Linear --reason 'File the bugs that the nightly run finds'
# Only for as long as it is needed:
agentkey agent request Linear --reason 'Triage the backlog' --duration 8h --max-vends 20 --ticket OPS-1234`,
	"agent credential": `# Into a file or another program, never onto a terminal that others see:
agentkey agent credential Linear
agentkey agent credential Linear --json`,
	"agent suggest": `agentkey agent suggest Sentry --url sentry.io --reason 'Read the errors of the nightly run'`,
	"agent learned": `agentkey agent learned Linear 'Lists end at 100 items; ask for the next page.' --why 'Half of the issues were missing.'`,

	"agents list": `agentkey agents list
agentkey agents list --name triage-bot --json`,
	"agents show": `agentkey agents show triage-bot`,
	"agents create": `agentkey agents create triage-bot --description 'Triages issues' --owner ann@example.com
# With a key that ends, and counts from one network only:
agentkey agents create triage-bot --key-expires-in 30d --address 10.0.0.0/8`,
	"agents update":     `agentkey agents update triage-bot --owner bob@example.com`,
	"agents suspend":    `agentkey agents suspend triage-bot`,
	"agents reactivate": `agentkey agents reactivate triage-bot`,
	"agents rotate-key": `# Without a gap: the old key works for ten more minutes.
agentkey agents rotate-key triage-bot --grace 10m
# After a leak: the old keys end at once.
agentkey agents rotate-key triage-bot`,
	"agents keys":       `agentkey agents keys triage-bot`,
	"agents revoke-key": `agentkey agents revoke-key triage-bot 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11`,

	"tools list": `agentkey tools list
agentkey tools list --name Linear --json`,
	"tools show": `agentkey tools show linear --json`,
	"tools create": `# Its credential is asked for on the terminal, without echo:
agentkey tools create Linear --url linear.app
agentkey tools create Linear --url linear.app --credential-file linear.key --credential-expires 90d
# Every agent gets its own, and two administrators have to approve:
agentkey tools create GitHub --per-agent --auth-type bot_token --required-approvals 2
# For those who suggested it:
agentkey tools create Sentry --url sentry.io --suggestion 'Error tracker'`,
	"tools update":             `agentkey tools update linear --instructions-file linear.md`,
	"tools replace-credential": `agentkey tools replace-credential linear --credential-stdin --credential-expires 2027-01-31`,
	"tools remove-credential":  `agentkey tools remove-credential linear`,
	"tools delete":             `agentkey tools delete linear`,

	"guide show": `agentkey guide show linear
agentkey guide show linear --version 2`,
	"guide history": `agentkey guide history linear`,
	"guide diff": `agentkey guide diff linear
agentkey guide diff linear --from 2 --to 5`,
	"guide restore": `agentkey guide restore linear 2`,
	"guide suggestions": `agentkey guide suggestions
agentkey guide suggestions --tool linear --status all --json`,
	"guide supporters": `agentkey guide supporters 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11`,
	"guide accept": `# What was learned comes below the instructions:
agentkey guide accept 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11
# With instructions that say it in other words:
agentkey guide accept 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11 --instructions-file linear.md`,
	"guide dismiss": `agentkey guide dismiss 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11 --reason 'The limit is 250 since May'`,

	"notifications show": `agentkey notifications show --json`,
	"notifications set": `# Asks for the URL, and does not show it:
agentkey notifications set slack
agentkey notifications set discord --credential-file webhook`,
	"notifications clear": `agentkey notifications clear slack`,

	"agents activity": `agentkey agents activity triage-bot --limit 5`,
	"tools activity":  `agentkey tools activity linear --json`,
	"org onboarding":  `agentkey org onboarding --dismiss`,
	"inbox": `agentkey inbox
agentkey inbox --kind access_request --limit 0 --json`,
	"config export": `agentkey config export --out tools.yaml
agentkey config export --format json`,
	"config plan": `agentkey config plan tools.yaml
# With what would be deleted, and which grants would end:
agentkey config plan tools.yaml --prune`,
	"config import": `# Shows the plan and asks:
agentkey config import tools.yaml
# Exactly what was looked at before, where nobody is asked:
agentkey config import tools.yaml --prune --plan 5f0c8a3e9d1b7246c0a8e4f17b3d5926810f4c7ea2d9b6531e8f70c4a5d2b913`,
	"suggestions list": `agentkey suggestions list
agentkey suggestions list --status all --json`,
	"suggestions show":    `agentkey suggestions show Sentry`,
	"suggestions dismiss": `agentkey suggestions dismiss Sentry`,

	"requests list":    `agentkey requests list`,
	"requests approve": `agentkey requests approve triage-bot linear --expires-in 8h --max-vends 20 --ticket OPS-17`,
	"requests deny":    `agentkey requests deny triage-bot linear --reason 'Use the read-only tool'`,
	"grants list": `agentkey grants list --agent triage-bot
agentkey grants list --tool linear --status approved --json`,
	"grants assign": `agentkey grants assign triage-bot linear --expires-in 30d`,
	"grants revoke": `agentkey grants revoke triage-bot linear`,
	"grants narrow": `agentkey grants narrow triage-bot linear --expires-in 1h --max-vends 5`,

	"tokens list":   `agentkey tokens list`,
	"tokens create": `agentkey tokens create --administrator ann@example.com --name laptop --expires-in 90d`,
	"tokens revoke": `agentkey tokens revoke 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11`,
	"admins list":   `agentkey admins list`,
	"admins add": `agentkey admins add ann@example.com --role approver
agentkey admins add deploy-pipeline --kind service --role admin`,
	"admins update": `agentkey admins update ann@example.com --role auditor`,
	"admins remove": `agentkey admins remove ann@example.com`,
	"org show":      `agentkey org show --json`,
	"org rename":    `agentkey org rename 'Acme Robotics'`,
	"lockdown": `agentkey lockdown --reason 'A key was found on a public page'
# With a token at hand for each of several organizations:
agentkey lockdown --org Acme --reason 'A key was found on a public page'`,
	"unlock": `agentkey unlock --reason 'All keys were rotated'
agentkey unlock --org Acme --reason 'All keys were rotated'`,
	"incident report": `# What left by this agent since Monday, and what must be rotated:
agentkey incident report --agent triage-bot --since 2026-11-23
agentkey incident report --ip 192.0.2.0/24 --since 8h --json
# By a key that was found, which is not sent:
agentkey incident report --key-stdin --since 30d`,
	"incident leaked-key": `agentkey incident leaked-key --stdin --url https://git.example.com/acme/bot`,

	"audit list": `agentkey audit list --agent triage-bot --from 8h
agentkey audit list --action grant.approved --from 2026-01-01 --to 2026-01-31 --limit 0 --json`,
	"audit export": `agentkey audit export --out log.jsonl
agentkey audit export --format csv --out log.csv`,
	"audit verify": `agentkey audit verify
# An exported log, with the public key that serve printed, and without any server:
agentkey audit verify log.jsonl --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj
# And that it extends a head that you kept:
agentkey audit verify log.jsonl --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj --against head-of-march.txt`,
	"audit tail": `# To standard output, and go on:
agentkey audit tail --follow
# To a file, from where it came to the last time:
agentkey audit tail --file /var/log/agentkey/audit.jsonl --cursor /var/lib/agentkey/tail.cursor
# To a collector, whose URL is in a file:
agentkey audit tail --follow --http-url-file siem.url --http-token-file siem.token --cursor tail.cursor --format ocsf`,
	"keys status": `agentkey keys status --count`,
	"keys rotate-dek": `agentkey keys rotate-dek
# Only the key that seals values:
agentkey keys rotate-dek --purpose seal`,
	"keys reseal": `agentkey keys reseal
# Ask for it, and look later:
agentkey keys reseal --no-wait`,
	"keys rotate-kek": `# A new key on the first line of the key file, the one before on the second:
agentkey keys rotate-kek --key-file encryption.key
# From a key file to OpenBao:
agentkey keys rotate-kek --key-provider transit:transit/agentkey --old-key-provider local --old-key-file encryption.key`,
	"keys rotate-installation": `agentkey keys rotate-installation --key-file encryption.key`,
	"keys rotate-signing-key":  `agentkey keys rotate-signing-key --out handover.json`,
	"keys check-handover":      `agentkey keys check-handover handover.json --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj`,
	"keys destroy-org":         `agentkey keys destroy-org --confirm 'Acme Inc.' --reason 'The contract has ended'`,
	"audit shipping":           `agentkey audit shipping --json`,
	"audit retention show":     `agentkey audit retention show`,
	"audit retention plan":     `agentkey audit retention plan --content-days 365 --personal-days 90`,
	"audit retention set": `# Shows what it would remove, and asks:
agentkey audit retention set --content-days 365 --personal-days 90
# For ever again:
agentkey audit retention set --yes`,
	"audit retention system": `agentkey audit retention system --personal-days 90
agentkey audit retention system --personal-days 90 --yes`,
	"audit hold list": `agentkey audit hold list`,
	"audit hold place": `agentkey audit hold place agent triage-bot --reason 'Case 2026-17'
agentkey audit hold place organization --reason 'Preservation letter of May 4'`,
	"audit hold lift": `agentkey audit hold lift 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11 --reason 'Case 2026-17 is closed'`,
	"audit erase-person": `# What would go:
agentkey audit erase-person ann@example.com --dry-run
# Shows it and asks, once they were removed:
agentkey audit erase-person 0198f3c2-7a51-7c0e-9d35-2f6b1e0a4c11`,
	"audit key":        `agentkey audit key`,
	"audit checkpoint": `agentkey audit checkpoint --out head.txt`,
	"audit prove": `# Event 4711 is in the log as it is now:
agentkey audit prove --seq 4711 --out proof.json
# The log has only grown since the head that you kept, of 5000 events:
agentkey audit prove --from 5000 --out proof.json`,
	"audit check": `agentkey audit check proof.json --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj
agentkey audit check proof.json --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj --against head-of-march.txt`,
	"audit verify-receipt": `agentkey audit verify-receipt receipt.json --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj
# And that the event is still there:
agentkey audit verify-receipt receipt.json --proof proof.json --public-key agentkey/0198f3c2+1c3daddf+AQh14oqhuVJf4yUj`,
	"audit reconcile": `agentkey audit reconcile`,
}

// showExamples puts the examples into the help of each command.
func showExamples(app *kong.Application) error {
	for _, command := range app.Leaves(false) {
		path := strings.Join(strings.Fields(command.Path()), " ")
		lines, ok := examples[path]
		if !ok {
			return fmt.Errorf("agentkey: the command %s has no example", path)
		}
		command.Detail = "Examples:\n\n\t" + strings.ReplaceAll(lines, "\n", "\n\t")
	}
	return nil
}

// asHelp makes `agentkey help COMMAND` mean `agentkey COMMAND --help`.
func asHelp(args []string) []string {
	if len(args) == 0 || args[0] != "help" {
		return args
	}
	return append(append([]string{}, args[1:]...), "--help")
}
