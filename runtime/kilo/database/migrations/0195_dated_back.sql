-- A row whose own time lies before the window was forgotten as soon as it was written: a jump of the database's
-- clock dates rows back, and so is an event that is handled long after it was written. Its effect was then known
-- for seconds, while the same event could still come again, and a writer's retry was taken for an event of its
-- own. The window begins with what last happened to a row now, if that is later.
CREATE INDEX inbox_received_idx ON inbox USING brin (received_at) WITH (autosummarize = on, pages_per_range = 16);

CREATE OR REPLACE FUNCTION outbox_drop_expired() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'outbox') * interval '1 day';
BEGIN
    DELETE FROM outbox_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM outbox_default
        WHERE dequeued_at < before AND (created_at < before OR created_at > now() + interval '1 day') LIMIT 5000));
    RETURN drop_old_partition('outbox', format('SELECT NOT EXISTS (SELECT FROM %%1$I WHERE dequeued_at IS NULL)'
        ' AND NOT EXISTS (SELECT FROM %%1$I WHERE dequeued_at >= %L)', before));
END $$;

CREATE OR REPLACE FUNCTION outbox_drop_fingerprints() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'outbox') * interval '1 day';
    gone integer;
BEGIN
    -- A day more, since a row that was taken later can be older: its transaction began before. What is dated
    -- back lies in the default partition, and its fingerprint is known for as long as the row is there.
    before := least(before, (SELECT created_at - interval '1 day' FROM outbox
                             WHERE dequeued_at IS NULL ORDER BY id LIMIT 1),
                    (SELECT min(created_at) - interval '1 day' FROM outbox_default));
    DELETE FROM outbox_fingerprints WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM outbox_fingerprints WHERE created_at < before ORDER BY created_at LIMIT 20000));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE OR REPLACE FUNCTION inbox_drop_expired() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'inbox') * interval '1 day';
BEGIN
    DELETE FROM inbox_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM inbox_default
        WHERE received_at < before AND (created_at < before OR created_at > now() + interval '1 day') LIMIT 5000));
    RETURN drop_old_partition('inbox',
        format('SELECT NOT EXISTS (SELECT FROM %%I WHERE received_at >= %L)', before));
END $$;
