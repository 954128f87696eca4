-- The same checks by a trigger on what they are about. PostgreSQL evaluates CHECK constraints at every UPDATE,
-- and the publisher's mark, which touches none of these columns, spent most of its time in them.
ALTER TABLE outbox
    DROP CONSTRAINT outbox_aggregate_is_a_subject_token,
    DROP CONSTRAINT outbox_aggregate_id_is_printable,
    DROP CONSTRAINT outbox_kind_is_a_name,
    DROP CONSTRAINT outbox_fingerprint_is_printable,
    DROP CONSTRAINT outbox_tenant_is_a_label,
    DROP CONSTRAINT outbox_traceparent_is_w3c,
    DROP CONSTRAINT outbox_publisher_is_known,
    DROP CONSTRAINT outbox_payload_within_limit;

CREATE FUNCTION outbox_check() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    broken text := CASE
        WHEN NEW.aggregate !~ '^[a-z][a-z0-9_-]{0,62}$' THEN 'outbox_aggregate_is_a_subject_token'
        WHEN NEW.aggregate_id !~ '^[!-~]{1,200}$' THEN 'outbox_aggregate_id_is_printable'
        WHEN NEW.kind !~ '^[a-z][a-z0-9_.-]{0,126}$' THEN 'outbox_kind_is_a_name'
        WHEN NEW.fingerprint !~ '^[!-~]{1,255}$' THEN 'outbox_fingerprint_is_printable'
        WHEN NEW.tenant !~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$' THEN 'outbox_tenant_is_a_label'
        WHEN NEW.traceparent !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
            THEN 'outbox_traceparent_is_w3c'
        WHEN NEW.publisher NOT IN ('worker', 'cdc') THEN 'outbox_publisher_is_known'
        WHEN octet_length(NEW.payload::text) > 1048576 THEN 'outbox_payload_within_limit'
    END;
BEGIN
    IF broken IS NOT NULL THEN
        RAISE check_violation USING
            MESSAGE = format('the row violates %s', broken), CONSTRAINT = broken, TABLE = 'outbox';
    END IF;
    RETURN NEW;
END $$;
-- Triggers fire in the order of their names: what is wrong takes no lock and no id.
CREATE TRIGGER outbox_a_check BEFORE INSERT OR UPDATE OF
    aggregate, aggregate_id, kind, fingerprint, tenant, traceparent, publisher, payload ON outbox
    FOR EACH ROW EXECUTE FUNCTION outbox_check();
