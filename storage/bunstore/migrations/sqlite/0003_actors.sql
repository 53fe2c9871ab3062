-- The log is searched by agent or tool together with the actor as well. What it
-- is searched by is derived: emptied here, it is written anew by the next search.
DELETE FROM agentkey_event_cursors;
DELETE FROM agentkey_event_times;
DELETE FROM agentkey_event_terms;
