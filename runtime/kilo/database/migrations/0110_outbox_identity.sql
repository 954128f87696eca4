-- The tenant is part of every identity: of fingerprints, of the ordering key (tenant, aggregate, aggregate id)
-- by which writers take turns and workers share rows, and of the message's id. What only the database knows
-- (id, created_at, publisher) is set by it, whoever writes. Functions run as their owner with a search_path of
-- their own, so that a writer needs INSERT on the outbox and nothing else, and its search_path is its own.
SET LOCAL lock_timeout = '30s';
LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;  -- nobody holds a lock on the former ordering key any more

DROP TRIGGER outbox_c_remember ON outbox;
DROP FUNCTION outbox_remember();
DO $$
DECLARE
    leaf regclass;
BEGIN
    FOR leaf IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'outbox'::regclass LOOP
        EXECUTE format('DROP INDEX IF EXISTS %I', leaf::text || '_fingerprint_idx');
    END LOOP;
END $$;

ALTER TABLE outbox ALTER COLUMN slot DROP EXPRESSION;
ALTER TABLE outbox
    ADD COLUMN payload_bytes integer,  -- of the JSON text, by which readers bound their batches
    ADD COLUMN message_id    text,     -- these two for change capture, which can't make them from columns
    ADD COLUMN ordering_key  text;
-- Rows in the WAL before this position do not have them, which a connector that asks for them can't pass.
CREATE TABLE outbox_capture_from AS SELECT pg_current_wal_insert_lsn() AS position;
UPDATE outbox SET slot = (hashtextextended(concat_ws('/', tenant, aggregate, aggregate_id), 0) & 63)::smallint
WHERE dequeued_at IS NULL;

-- Lengths by themselves: a bounded repetition in a regular expression costs as much as all else of an insert.
CREATE OR REPLACE FUNCTION outbox_check() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    broken text;
BEGIN
    IF num_nulls(NEW.tenant, NEW.aggregate, NEW.aggregate_id, NEW.kind, NEW.payload, NEW.fingerprint) > 0 THEN
        RAISE not_null_violation USING
            MESSAGE = 'tenant, aggregate, aggregate_id, kind, payload and fingerprint must be given',
            CONSTRAINT = 'outbox_fields_are_given', TABLE = 'outbox';
    END IF;
    NEW.payload_bytes := octet_length(NEW.payload::text);
    broken := CASE
        WHEN NEW.aggregate !~ '^[a-z][a-z0-9_-]*$' OR length(NEW.aggregate) > 63
            THEN 'outbox_aggregate_is_a_subject_token'
        WHEN NEW.aggregate_id !~ '^[!-~]+$' OR length(NEW.aggregate_id) > 200
            THEN 'outbox_aggregate_id_is_printable'
        WHEN NEW.kind !~ '^[a-z][a-z0-9_.-]*$' OR length(NEW.kind) > 127 THEN 'outbox_kind_is_a_name'
        WHEN NEW.fingerprint !~ '^[!-~]+$' OR length(NEW.fingerprint) > 255
            THEN 'outbox_fingerprint_is_printable'
        WHEN NEW.tenant !~ '^[a-z][a-z0-9-]*$' OR NEW.tenant ~ '-$' OR length(NEW.tenant) > 40
            THEN 'outbox_tenant_is_a_label'
        WHEN NEW.traceparent !~ '^[0-9a-f-]+$' OR length(replace(NEW.traceparent, '-', '')) <> 52
                OR NEW.traceparent NOT LIKE '__-________________________________-________________-__'
            THEN 'outbox_traceparent_is_w3c'
        WHEN NEW.publisher NOT IN ('worker', 'cdc') THEN 'outbox_publisher_is_known'
        WHEN NEW.payload_bytes > 1048576 THEN 'outbox_payload_within_limit'
    END;
    IF broken IS NOT NULL THEN
        RAISE check_violation USING
            MESSAGE = format('the row violates %s', broken), CONSTRAINT = broken, TABLE = 'outbox';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION outbox_before_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    ordering_key text := NEW.tenant || '/' || NEW.aggregate || '/' || NEW.aggregate_id;
    events integer := coalesce(nullif(current_setting('kilo.outbox_events', true), ''), '0')::integer + 1;
    most integer;
    known bytea;
BEGIN
    -- A partitioned table does not let a trigger move a row, so a time of another day can only be refused.
    IF NEW.created_at IS DISTINCT FROM now() THEN
        IF (NEW.created_at AT TIME ZONE 'UTC')::date IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date THEN
            RAISE check_violation USING
                MESSAGE = 'created_at is set by the database: leave it out',
                CONSTRAINT = 'outbox_created_at_is_the_databases', TABLE = 'outbox';
        END IF;
        NEW.created_at := now();
    END IF;
    IF NEW.content_digest IS NULL THEN
        NEW.content_digest := sha256(convert_to(
            concat_ws(E'\n', NEW.tenant, NEW.aggregate, NEW.aggregate_id, NEW.kind, NEW.payload::text), 'UTF8'));
    END IF;

    -- Each ordering key takes one of the server's locks until the transaction ends. A transaction that took
    -- them all would fail others' statements, so it is refused at a quarter of them; looked at now and then.
    IF events % 256 = 0 THEN
        most := current_setting('max_locks_per_transaction')::integer * current_setting('max_connections')::integer / 4;
        IF (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory') >= most THEN
            RAISE check_violation USING
                MESSAGE = format('one transaction writes events of more than %s aggregates', most),
                CONSTRAINT = 'outbox_locks_within_limit', TABLE = 'outbox';
        END IF;
    END IF;
    PERFORM set_config('kilo.outbox_events', events::text, true);

    -- Order: writers of one key take turns before the id is taken and until they commit, so whoever sees a row
    -- sees all earlier ones of its key too. The transaction id is taken before the row's id: the worker relies
    -- on ids of a transaction being larger than any seen before that transaction began.
    PERFORM pg_advisory_xact_lock(hashtextextended('outbox-order/' || ordering_key, 0));
    PERFORM pg_current_xact_id();
    NEW.id := nextval('outbox_id_seq');

    LOOP
        INSERT INTO outbox_fingerprints
        VALUES (NEW.fingerprint, NEW.tenant, NEW.id, NEW.created_at, NEW.content_digest) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT f.content_digest INTO known FROM outbox_fingerprints f
        WHERE f.fingerprint = NEW.fingerprint AND f.tenant = NEW.tenant;
        IF known = NEW.content_digest THEN
            RETURN NULL;
        ELSIF FOUND THEN
            RAISE unique_violation USING
                MESSAGE = format('fingerprint %s was used for another content', NEW.fingerprint),
                CONSTRAINT = 'outbox_fingerprint_content', TABLE = 'outbox';
        END IF;
        -- It expired between the two statements.
    END LOOP;

    NEW.content_digest := '';  -- it lies with the fingerprint
    NEW.dequeued_at := NULL;
    NEW.slot := hashtextextended(ordering_key, 0) & 63;
    IF EXISTS (SELECT FROM outbox_cdc_aggregates c WHERE c.aggregate = NEW.aggregate) THEN
        NEW.publisher := 'cdc';
        NEW.message_id := NEW.tenant || '/' || NEW.fingerprint;
        NEW.ordering_key := ordering_key;
    ELSE
        NEW.publisher := 'worker';
        NEW.message_id := NULL;
        NEW.ordering_key := NULL;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION outbox_after_insert() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
BEGIN
    IF coalesce(nullif(current_setting('kilo.outbox_notify', true), ''), 'on') <> 'off' THEN
        PERFORM pg_notify('outbox', '');
    END IF;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION outbox_check, outbox_before_insert, outbox_after_insert FROM PUBLIC;
GRANT SELECT ON outbox_fingerprints TO kilo_worker, kilo_ingest;
