-- Fingerprints in a table of their own, of which a unique index keeps one a tenant: looking one up in every
-- partition cost most of an insert, and a lock an event. Three files make the change while events flow: from
-- here on new rows are in it, the next file adds those that are there, and the one after it relies on it.
SET LOCAL lock_timeout = '30s';
LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;  -- whoever writes without the trigger below ends first

CREATE TABLE outbox_fingerprints (
    fingerprint    text        COLLATE "C" NOT NULL,
    tenant         text        COLLATE "C" NOT NULL,
    outbox_id      bigint      NOT NULL,
    created_at     timestamptz NOT NULL,  -- the outbox row's: with its id it finds partition and row
    content_digest bytea       NOT NULL,
    PRIMARY KEY (fingerprint, tenant)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_fingerprints_created_idx ON outbox_fingerprints (created_at);

CREATE FUNCTION outbox_remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO outbox_fingerprints
    VALUES (NEW.fingerprint, NEW.tenant, NEW.id, NEW.created_at, NEW.content_digest) ON CONFLICT DO NOTHING;
    RETURN NEW;
END $$;
CREATE TRIGGER outbox_c_remember BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION outbox_remember();
