-- Daily partitions, made ahead and dropped in bounded steps. Both functions take short locks or none: a step
-- that would have to queue behind someone gives up, and the next call tries again.

CREATE FUNCTION kilo_create_partitions(parent text, days_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    made integer := 0;
    first_day date := (now() AT TIME ZONE 'UTC')::date - 1;
    day date;
    leaf text;
BEGIN
    IF parent NOT IN ('outbox', 'inbox') THEN
        RAISE EXCEPTION '% has no partitions of this kind', parent;
    END IF;
    IF to_regclass(parent || '_default') IS NULL THEN
        -- A clock that jumps, or maintenance that stood still, must never refuse a row.
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_default', parent);
        PERFORM kilo_tune_partition(parent, parent || '_default');
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
            PERFORM kilo_tune_partition(parent, leaf);
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- check_violation: the default partition already holds rows of this day, and keeps them.
            NULL;
        END;
    END LOOP;
    RETURN made;
END $$;

CREATE FUNCTION kilo_tune_partition(parent text, leaf text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- A queue's dead rows lie together at its head: vacuum by count, not by share, and don't throttle it.
    EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,'
                   ' autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,'
                   ' autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0)', leaf);
    IF parent = 'outbox' THEN
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (fingerprint)', leaf || '_fingerprint_idx', leaf);
    END IF;
END $$;

-- Drop at most `most` partitions that end before `before`; of the outbox only those that are drained.
-- Rows of the default partition go by bounded deletes. Returns what was dropped.
CREATE FUNCTION kilo_drop_partitions(parent text, before timestamptz, most integer DEFAULT 1) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    dropped text[] := '{}';
    leaf record;
    waiting boolean;
BEGIN
    IF parent NOT IN ('outbox', 'inbox') THEN
        RAISE EXCEPTION '% has no partitions of this kind', parent;
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR leaf IN
        SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = parent::regclass AND c.relname ~ ('^' || parent || '_\d{8}$')
          AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= (before AT TIME ZONE 'UTC')::date
        ORDER BY c.relname
    LOOP
        EXIT WHEN cardinality(dropped) >= most;
        IF parent = 'outbox' THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE dequeued_at IS NULL)', leaf.name) INTO waiting;
            CONTINUE WHEN waiting;
        END IF;
        BEGIN
            EXECUTE format('DROP TABLE %I', leaf.name);
            dropped := dropped || leaf.name::text;
        EXCEPTION WHEN lock_not_available THEN
            EXIT;
        END;
    END LOOP;
    IF parent = 'outbox' THEN
        DELETE FROM outbox_default WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM outbox_default WHERE created_at < before AND dequeued_at IS NOT NULL LIMIT 5000));
    ELSE
        DELETE FROM inbox_default WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM inbox_default WHERE created_at < before LIMIT 5000));
    END IF;
    RETURN dropped;
END $$;

REVOKE EXECUTE ON FUNCTION kilo_create_partitions, kilo_drop_partitions, kilo_tune_partition FROM PUBLIC;
SELECT kilo_create_partitions('outbox', 3);
