-- The log is searched by agent or tool together with the actor as well. What it
-- is searched by is derived: emptied here, it is written anew by the next search.
TRUNCATE ${schema}.agentkey_event_cursors, ${schema}.agentkey_event_times, ${schema}.agentkey_event_terms;
