-- Each role keeps its own table's partitions: it makes those ahead and drops those that are older than the
-- table's window, which `kilo db migrate` writes down and no such role can change. What this replaces goes in 0191.
CREATE TABLE partition_windows (
    parent text    PRIMARY KEY,
    days   integer NOT NULL CHECK (days >= 1)
);
INSERT INTO partition_windows VALUES ('outbox', 7), ('inbox', 14);

CREATE FUNCTION make_partitions(parent text, days_ahead integer) RETURNS integer LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    made integer := 0;
    first_day date := (now() AT TIME ZONE 'UTC')::date - 1;
    day date;
    leaf text;
BEGIN
    IF to_regclass(parent || '_default') IS NULL THEN
        -- A clock that jumps, or maintenance that stood still, must never refuse a row.
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_default', parent);
        PERFORM tune_partition(parent || '_default');
    END IF;
    FOR day IN SELECT first_day + n FROM generate_series(0, days_ahead + 1) n LOOP
        leaf := parent || '_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(leaf) IS NOT NULL;
        BEGIN
            PERFORM set_config('lock_timeout', '200ms', true);
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)',
                           leaf, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           parent, leaf, day::timestamptz, (day + 1)::timestamptz);
            PERFORM tune_partition(leaf);
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- check_violation: the default partition already holds rows of this day, and keeps them.
            NULL;
        END;
    END LOOP;
    RETURN made;
END $$;

CREATE FUNCTION tune_partition(leaf text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- A queue's dead rows lie together at its head: vacuum by count, not by share, and don't throttle it.
    EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,'
                   ' autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,'
                   ' autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0)', leaf);
END $$;

-- The first partition that ended before the table's window, when there is one and `drained` says it may go.
CREATE FUNCTION drop_old_partition(parent_table text, drained text) RETURNS text LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    oldest date := (SELECT (now() AT TIME ZONE 'UTC')::date - w.days FROM partition_windows w
                    WHERE w.parent = parent_table);
    leaf text;
    free boolean;
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR leaf IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = parent_table::regclass AND c.relname ~ ('^' || parent_table || '_\d{8}$')
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < oldest
        ORDER BY c.relname
    LOOP
        EXECUTE format(drained, leaf) INTO free;
        CONTINUE WHEN NOT free;
        BEGIN
            EXECUTE format('DROP TABLE %I', leaf);
            RETURN leaf;
        EXCEPTION WHEN lock_not_available THEN
            RETURN NULL;
        END;
    END LOOP;
    RETURN NULL;
END $$;

CREATE FUNCTION outbox_make_partitions() RETURNS integer LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$ SELECT make_partitions('outbox', 3) $$;
CREATE FUNCTION inbox_make_partitions() RETURNS integer LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$ SELECT make_partitions('inbox', 3) $$;

-- One bounded step: at most one partition, which it returns, of those that are drained; rows of the default
-- partition; and fingerprints, which are known for the window and as long as anything older waits.
CREATE FUNCTION outbox_drop_expired() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'outbox') * interval '1 day';
BEGIN
    DELETE FROM outbox_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM outbox_default
        WHERE created_at < before AND dequeued_at IS NOT NULL
            OR created_at > now() + interval '1 day' AND dequeued_at < before LIMIT 5000));
    -- A day more, since a row that was taken later can be older: its transaction began before.
    before := least(before, (SELECT created_at - interval '1 day' FROM outbox
                             WHERE dequeued_at IS NULL ORDER BY id LIMIT 1));
    DELETE FROM outbox_fingerprints WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM outbox_fingerprints WHERE created_at < before ORDER BY created_at LIMIT 20000));
    RETURN drop_old_partition('outbox', 'SELECT NOT EXISTS (SELECT FROM %I WHERE dequeued_at IS NULL)');
END $$;
CREATE FUNCTION inbox_drop_expired() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    before timestamptz := now() - (SELECT days FROM partition_windows WHERE parent = 'inbox') * interval '1 day';
BEGIN
    DELETE FROM inbox_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM inbox_default
        WHERE created_at < before OR created_at > now() + interval '1 day' AND received_at < before LIMIT 5000));
    RETURN drop_old_partition('inbox', 'SELECT true');
END $$;

REVOKE EXECUTE ON FUNCTION make_partitions, tune_partition, drop_old_partition, outbox_make_partitions,
    inbox_make_partitions, outbox_drop_expired, inbox_drop_expired FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox_make_partitions, outbox_drop_expired TO kilo_worker;
GRANT EXECUTE ON FUNCTION inbox_make_partitions, inbox_drop_expired TO kilo_consumer;
