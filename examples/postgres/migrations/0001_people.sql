-- +goose Up
CREATE SCHEMA console;

CREATE TABLE console.people (
	email text PRIMARY KEY CHECK (email <> ''),
	role  text NOT NULL CHECK (role IN ('owner', 'admin', 'approver', 'auditor'))
);

CREATE TABLE console.deployments (
	log_index bigint PRIMARY KEY, -- of the event in AgentKey's log
	service   text NOT NULL CHECK (service <> ''),
	agent     text NOT NULL,
	person    text NOT NULL
);

-- +goose Down
DROP TABLE console.deployments;
DROP TABLE console.people;
DROP SCHEMA console;
