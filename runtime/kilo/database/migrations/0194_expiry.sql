-- Fingerprints went 20,000 a minute, beside the oldest partition: from 333 events a second on, the table grew
-- without end. They go by steps of their own now, as many as it takes.
CREATE OR REPLACE FUNCTION outbox_drop_expired() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'outbox') * interval '1 day';
BEGIN
    DELETE FROM outbox_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM outbox_default
        WHERE created_at < before AND dequeued_at IS NOT NULL
            OR created_at > now() + interval '1 day' AND dequeued_at < before LIMIT 5000));
    RETURN drop_old_partition('outbox', 'SELECT NOT EXISTS (SELECT FROM %I WHERE dequeued_at IS NULL)');
END $$;

CREATE FUNCTION outbox_drop_fingerprints() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'outbox') * interval '1 day';
    gone integer;
BEGIN
    -- A day more, since a row that was taken later can be older: its transaction began before.
    before := least(before, (SELECT created_at - interval '1 day' FROM outbox
                             WHERE dequeued_at IS NULL ORDER BY id LIMIT 1));
    DELETE FROM outbox_fingerprints WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM outbox_fingerprints WHERE created_at < before ORDER BY created_at LIMIT 20000));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
REVOKE EXECUTE ON FUNCTION outbox_drop_fingerprints FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox_drop_fingerprints TO kilo_worker;

-- A row of events is written once; only a rotation rewrites what is encrypted in it.
REVOKE UPDATE ON events FROM kilo_ingest;
