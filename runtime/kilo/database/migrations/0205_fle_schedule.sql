-- What runs on a schedule: signing checkpoints of the audit log, and destroying keys whose time has come.
-- Each has a role that can do that and nothing else, and what waits too long is seen.

CREATE TABLE fle_checkpoints (
    -- How many entries it covers. The signed note itself lies in the locked bucket: this is for monitors.
    size bigint PRIMARY KEY CHECK (size > 0),
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER fle_checkpoints_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fle_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION fle_append_only();

-- Since when an entry waits for a checkpoint; no row when none does. Without the entries themselves.
CREATE VIEW fle_audit_unsigned AS
    SELECT (entry::jsonb ->> 'at')::timestamptz AS since FROM fle_audit
    WHERE seq = (SELECT coalesce(max(size), 0) FROM fle_checkpoints);

GRANT USAGE ON SCHEMA public TO kilo_auditor, kilo_destroyer;
GRANT SELECT ON fle_audit TO kilo_auditor;
GRANT SELECT, INSERT ON fle_checkpoints TO kilo_auditor;

GRANT SELECT (id, tenant, state, destroy_after), UPDATE (state) ON fle_keys TO kilo_destroyer;
GRANT SELECT (key_id), DELETE ON fle_wraps TO kilo_destroyer;
GRANT SELECT, INSERT ON fle_audit TO kilo_destroyer;

GRANT SELECT ON fle_audit_unsigned TO kilo_consumer;

-- The destroyer's right to a key's state is for one step alone.
CREATE FUNCTION fle_keys_destroyer_destroys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (OLD.state = 'retired' AND OLD.destroy_after <= now() AND NEW.state = 'destroyed') THEN
        RAISE EXCEPTION 'fle_keys: % may only destroy retired keys that are due', current_user;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fle_keys_destroyer_destroys BEFORE UPDATE ON fle_keys
    FOR EACH ROW WHEN (current_user = 'kilo_destroyer') EXECUTE FUNCTION fle_keys_destroyer_destroys();

CREATE FUNCTION fle_wraps_destroyer_destroys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM fle_keys k WHERE k.id = OLD.key_id AND k.state = 'retired' AND k.destroy_after <= now())
    THEN
        RAISE EXCEPTION 'fle_wraps: % may only destroy wraps of retired keys that are due', current_user;
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER fle_wraps_destroyer_destroys BEFORE DELETE ON fle_wraps
    FOR EACH ROW WHEN (current_user = 'kilo_destroyer') EXECUTE FUNCTION fle_wraps_destroyer_destroys();
