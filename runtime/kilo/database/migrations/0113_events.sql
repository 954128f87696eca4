-- A key that is used again after its window is an event of its own, and so is its business row: with the time at
-- which it was committed, which is the outbox row's too. The former one stayed only until then.
SET LOCAL lock_timeout = '30s';
ALTER TABLE events
    DROP CONSTRAINT events_pkey,
    ADD PRIMARY KEY (fingerprint, tenant, received_at);

-- How long these rows are kept is the stage's to say; without a window that is for good.
CREATE INDEX events_received_idx ON events USING brin (received_at) WITH (autosummarize = on, pages_per_range = 16);
CREATE FUNCTION events_drop_expired() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'events') * interval '1 day';
    gone integer;
BEGIN
    DELETE FROM events WHERE ctid = ANY (ARRAY(SELECT ctid FROM events WHERE received_at < before LIMIT 5000));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE EXECUTE ON FUNCTION events_drop_expired FROM PUBLIC;
GRANT EXECUTE ON FUNCTION events_drop_expired TO kilo_worker;
