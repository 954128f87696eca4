-- Field encryption's key table: data keys by tenant, purpose and version, each wrapped by one KMS key
-- or more. Wrapped keys are useless without KMS; still, only roles that encrypt or decrypt read them.

CREATE TABLE fle_keys (
    -- Four bytes of it are in every encrypted value.
    id bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 4294967295),
    tenant text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('field-data', 'field-index')),
    format smallint NOT NULL CHECK (format IN (1, 2)),
    version integer NOT NULL CHECK (version > 0),
    -- pending: made, not yet written with; active: written and read; retiring: read, and still finalizable
    -- or revertible; retired: refused; destroyed: its wraps are gone.
    state text NOT NULL CHECK (state IN ('pending', 'active', 'retiring', 'retired', 'destroyed')),
    message_limit bigint NOT NULL CHECK (message_limit > 0),
    -- Writers reserve messages in blocks before they encrypt, so that no crash forgets one.
    messages_reserved bigint NOT NULL DEFAULT 0 CHECK (messages_reserved BETWEEN 0 AND message_limit),
    created_at timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    destroy_after timestamptz,
    UNIQUE (tenant, purpose, version)
);
CREATE SEQUENCE fle_keys_id AS bigint MAXVALUE 4294967295 OWNED BY fle_keys.id;
CREATE UNIQUE INDEX fle_keys_one_active ON fle_keys (tenant, purpose) WHERE state = 'active';

CREATE TABLE fle_wraps (
    key_id bigint NOT NULL REFERENCES fle_keys (id),
    provider text NOT NULL CHECK (provider IN ('aws', 'gcp')),
    -- The KMS key's name, never its material.
    kms_key text NOT NULL,
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key_id, provider, kms_key)
);

-- What a tenant's readers must refuse, however the rows of fle_keys look.
CREATE TABLE fle_tenants (
    tenant text PRIMARY KEY,
    minimum_version integer NOT NULL DEFAULT 0,
    -- While a tenant moves into scope or out of it, plain and encrypted values lie side by side.
    moving text CHECK (moving IN ('adopt', 'release')),
    shredded_at timestamptz
);

CREATE FUNCTION fle_tenants_only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.minimum_version < OLD.minimum_version
       OR (OLD.shredded_at IS NOT NULL AND NEW.shredded_at IS DISTINCT FROM OLD.shredded_at) THEN
        RAISE EXCEPTION 'fle_tenants: a minimum version never falls and a shredded tenant stays shredded';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fle_tenants_only_forward BEFORE UPDATE OR DELETE ON fle_tenants
    FOR EACH ROW EXECUTE FUNCTION fle_tenants_only_forward();

-- Every change of a key's state and of its wraps, kept by the database itself.
CREATE TABLE fle_key_history (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id bigint NOT NULL,
    tenant text NOT NULL,
    event text NOT NULL,
    state text,
    kms_key text,
    by_role text NOT NULL DEFAULT session_user,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION fle_keys_keep_history() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.state <> OLD.state THEN
        INSERT INTO fle_key_history (key_id, tenant, event, state) VALUES (NEW.id, NEW.tenant, 'state', NEW.state);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fle_keys_keep_history AFTER INSERT OR UPDATE OF state ON fle_keys
    FOR EACH ROW EXECUTE FUNCTION fle_keys_keep_history();

CREATE FUNCTION fle_wraps_keep_history() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT AS $$
DECLARE
    wrap fle_wraps := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO fle_key_history (key_id, tenant, event, kms_key)
        SELECT wrap.key_id, tenant, CASE WHEN TG_OP = 'DELETE' THEN 'wrap destroyed' ELSE 'wrapped' END, wrap.kms_key
        FROM fle_keys WHERE id = wrap.key_id;
    RETURN NULL;
END $$;
CREATE TRIGGER fle_wraps_keep_history AFTER INSERT OR UPDATE OR DELETE ON fle_wraps
    FOR EACH ROW EXECUTE FUNCTION fle_wraps_keep_history();

CREATE FUNCTION fle_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER fle_key_history_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fle_key_history
    FOR EACH STATEMENT EXECUTE FUNCTION fle_append_only();

-- Rights of the roles that exist: ingest makes a tenant's first key and reserves messages, the consumer reads.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'kilo_ingest') THEN
        GRANT SELECT, INSERT ON fle_keys, fle_wraps TO kilo_ingest;
        GRANT UPDATE (messages_reserved) ON fle_keys TO kilo_ingest;
        GRANT UPDATE (wrapped, created_at) ON fle_wraps TO kilo_ingest;
        GRANT SELECT ON fle_tenants TO kilo_ingest;
        GRANT USAGE ON SEQUENCE fle_keys_id TO kilo_ingest;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'kilo_consumer') THEN
        GRANT SELECT ON fle_keys, fle_wraps, fle_tenants TO kilo_consumer;
    END IF;
END $$;
