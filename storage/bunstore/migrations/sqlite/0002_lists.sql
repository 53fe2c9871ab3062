-- Lists show the grants of many agents or tools at once, by their status and the
-- newest first. A vend changes none of these columns, so that it pays nothing.
CREATE INDEX agentkey_grants_agent_status ON agentkey_grants (organization, agent_id, status, id);
CREATE INDEX agentkey_grants_tool_status ON agentkey_grants (organization, tool_id, status, id);
CREATE INDEX agentkey_grants_agent ON agentkey_grants (organization, agent_id, id);

-- Agents and tools are looked for by name.
CREATE INDEX agentkey_agents_name ON agentkey_agents (organization, name, id);
CREATE INDEX agentkey_tools_name ON agentkey_tools (organization, name, id);

-- The log is searched by pairs of terms as well. What it is searched by is
-- derived: emptied here, it is written anew by the next search.
DELETE FROM agentkey_event_cursors;
DELETE FROM agentkey_event_times;
DELETE FROM agentkey_event_terms;
