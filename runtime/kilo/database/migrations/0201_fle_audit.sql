-- The audit log of key management: append-only, each entry holding the hash of the one before it.
-- The text is kept as it was hashed, so nothing depends on how a database prints JSON.

CREATE TABLE fle_audit (
    seq bigint PRIMARY KEY CHECK (seq >= 0),
    entry text NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE TRIGGER fle_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fle_audit
    FOR EACH STATEMENT EXECUTE FUNCTION fle_append_only();
