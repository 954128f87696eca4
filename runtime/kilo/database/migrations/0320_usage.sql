-- What tenants use, by hour and by day. The day is written with the hour, in the same transaction: no job adds
-- hours up afterwards that could be late, run twice or not at all. Nothing here names a person: of a request there
-- is its route's name, of an event its kind.

-- How far each file of each gateway is read. Sums are added in the transaction that moves `read_to`, so whoever
-- reads the same bytes again, or at the same time, finds it moved and adds nothing.
CREATE TABLE usage_files (
    source        text        NOT NULL,  -- the gateway's pod
    file          text        NOT NULL,  -- by its first line, whatever it is called
    read_to       bigint      NOT NULL DEFAULT 0 CHECK (read_to >= 0),
    entries       bigint      NOT NULL DEFAULT 0,
    unreadable    bigint      NOT NULL DEFAULT 0,  -- lines that were torn
    dropped_bytes bigint      NOT NULL DEFAULT 0,  -- never read, for want of room
    seen_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, file)
);

CREATE TABLE usage_requests (
    hour     timestamptz NOT NULL,
    tenant   text        NOT NULL,  -- empty: of no tenant
    route    text        NOT NULL,
    method   text        NOT NULL,
    status   text        NOT NULL,  -- its class, such as 2xx
    version  text        NOT NULL,
    shed     text        NOT NULL,  -- which limit refused it
    requests bigint      NOT NULL,
    received bigint      NOT NULL,  -- bytes of bodies
    sent     bigint      NOT NULL,
    PRIMARY KEY (hour, tenant, route, method, status, version, shed)
) PARTITION BY RANGE (hour);
CREATE TABLE usage_request_days (
    day      date   NOT NULL,
    tenant   text   NOT NULL,
    route    text   NOT NULL,
    method   text   NOT NULL,
    status   text   NOT NULL,
    version  text   NOT NULL,
    shed     text   NOT NULL,
    requests bigint NOT NULL,
    received bigint NOT NULL,
    sent     bigint NOT NULL,
    PRIMARY KEY (day, tenant, route, method, status, version, shed)
);

-- What the platform counts by itself: events by kind, encryption, calls to the KMS, keys found in memory, bytes
-- that lie there for an hour.
CREATE TABLE usage_measures (
    hour    timestamptz NOT NULL,
    tenant  text        NOT NULL,
    measure text        NOT NULL,
    kind    text        NOT NULL,
    amount  numeric     NOT NULL,
    PRIMARY KEY (hour, tenant, measure, kind)
) PARTITION BY RANGE (hour);
CREATE TABLE usage_measure_days (
    day     date    NOT NULL,
    tenant  text    NOT NULL,
    measure text    NOT NULL,
    kind    text    NOT NULL,
    amount  numeric NOT NULL,
    PRIMARY KEY (day, tenant, measure, kind)
);
-- The last value of each counter of a process, and how far everything else is counted.
CREATE TABLE usage_counters (
    series  text             PRIMARY KEY,
    value   double precision NOT NULL,
    seen_at timestamptz      NOT NULL DEFAULT now()
);
CREATE TABLE usage_progress (
    what text        PRIMARY KEY,
    at   timestamptz NOT NULL
);
-- Events of before today are no usage that anybody asked for.
INSERT INTO usage_progress VALUES
    ('installed', now()), ('counters', now()), ('events', date_trunc('day', now(), 'UTC')), ('stored', date_trunc('hour', now(), 'UTC'));

INSERT INTO partition_windows VALUES
    ('usage_requests', 35), ('usage_measures', 35), ('usage_request_days', 400), ('usage_measure_days', 400);
SELECT make_partitions('usage_requests', 3), make_partitions('usage_measures', 3);

CREATE FUNCTION usage_make_partitions() RETURNS integer LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
    SELECT make_partitions('usage_requests', 3) + make_partitions('usage_measures', 3)
$$;

-- One bounded step; how much went. Files are forgotten when no gateway has shown them for three months.
CREATE FUNCTION usage_drop_expired() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    gone integer := 0;
    step integer;
    kept integer;
    place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['usage_requests', 'usage_measures'] LOOP
        SELECT days INTO kept FROM partition_windows w WHERE w.parent = place;
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY('
                       'SELECT ctid FROM %1$I WHERE hour < now() - $1 * interval ''1 day'' LIMIT 5000))',
                       place || '_default') USING kept;
        GET DIAGNOSTICS step = ROW_COUNT;
        gone := gone + step + (drop_old_partition(place, 'SELECT true') IS NOT NULL)::integer;
    END LOOP;
    FOREACH place IN ARRAY ARRAY['usage_request_days', 'usage_measure_days'] LOOP
        SELECT days INTO kept FROM partition_windows w WHERE w.parent = place;
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY('
                       'SELECT ctid FROM %1$I WHERE day < now()::date - $1 LIMIT 5000))', place) USING kept;
        GET DIAGNOSTICS step = ROW_COUNT;
        gone := gone + step;
    END LOOP;
    DELETE FROM usage_files WHERE seen_at < now() - interval '90 days';
    RETURN gone;
END $$;

-- Before when no event can appear any more: one gets the time at which its transaction began, so it is when the
-- oldest that is open began. Ten seconds less, for those that began and do not show it yet. What does not show
-- other sessions' transactions says nothing.
CREATE FUNCTION usage_horizon() RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s is no member of pg_read_all_stats', current_user);
    END IF;
    RETURN least(now(), (SELECT min(xact_start) FROM pg_stat_activity
                         WHERE datname = current_database() AND backend_type <> 'autovacuum worker'))
        - interval '10 s';
END $$;

-- Bytes on disk of what tenants store, with indexes, shared among them as a sample of at most 2,000 blocks a table
-- (16 MiB) has it: an hour's measurement costs the same whatever lies there.
CREATE FUNCTION usage_stored() RETURNS TABLE (tenant text, kind text, bytes numeric) LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    place text;
    whole numeric;
    blocks numeric;
BEGIN
    FOREACH place IN ARRAY ARRAY['events', 'outbox'] LOOP
        SELECT sum(pg_total_relation_size(relid)), sum(pg_relation_size(relid)) / 8192 INTO whole, blocks
        FROM (SELECT relid::oid FROM pg_partition_tree(place::regclass) UNION SELECT place::regclass::oid) parts;
        RETURN QUERY EXECUTE format(
            'WITH sampled AS (SELECT t.tenant, sum(pg_column_size(t.*))::numeric AS size FROM %I t
                           TABLESAMPLE SYSTEM (%s) GROUP BY 1)
             SELECT s.tenant, %L, round($1 * s.size / sum(s.size) OVER ()) FROM sampled s',
            place, least(100, round(100 * 2000 / greatest(blocks, 1), 6)), place) USING whole;
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION usage_make_partitions, usage_drop_expired, usage_horizon, usage_stored FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO kilo_usage;
GRANT EXECUTE ON FUNCTION usage_make_partitions, usage_drop_expired, usage_horizon, usage_stored TO kilo_usage;
GRANT SELECT, INSERT, UPDATE (read_to, entries, unreadable, dropped_bytes, seen_at) ON usage_files TO kilo_usage;
GRANT SELECT, INSERT, UPDATE (requests, received, sent) ON usage_requests, usage_request_days TO kilo_usage;
GRANT SELECT, INSERT, UPDATE (amount) ON usage_measures, usage_measure_days TO kilo_usage;
GRANT SELECT, INSERT, UPDATE (value, seen_at), DELETE ON usage_counters TO kilo_usage;
GRANT SELECT, UPDATE (at) ON usage_progress TO kilo_usage;
-- Events are counted by their kind; what is in them is not this role's to read.
GRANT SELECT (tenant, kind, received_at) ON events TO kilo_usage;
