-- Who may do what to the key table. Services read keys and count messages; a key maker adds keys; rotation and
-- shredding (kilo_rotator, for people and their runbooks) change them; the destroyer takes away what is due.

REVOKE INSERT ON fle_keys, fle_wraps FROM kilo_ingest;
REVOKE UPDATE (wrapped, created_at) ON fle_wraps FROM kilo_ingest;
REVOKE USAGE ON SEQUENCE fle_keys_id FROM kilo_ingest;
REVOKE SELECT, INSERT ON fle_audit FROM kilo_ingest;

GRANT USAGE ON SCHEMA public TO kilo_keymaker, kilo_rotator;
GRANT SELECT ON fle_keys, fle_wraps, fle_tenants, fle_scope TO kilo_keymaker, kilo_rotator;
GRANT INSERT ON fle_keys, fle_wraps TO kilo_keymaker, kilo_rotator;
GRANT USAGE ON SEQUENCE fle_keys_id TO kilo_keymaker, kilo_rotator;
GRANT SELECT, INSERT ON fle_audit TO kilo_keymaker, kilo_rotator;

GRANT UPDATE (state, activated_at, destroy_after, digest, messages_reserved) ON fle_keys TO kilo_rotator;
GRANT DELETE ON fle_wraps TO kilo_rotator;
GRANT INSERT, UPDATE ON fle_tenants TO kilo_rotator;
GRANT INSERT, UPDATE, DELETE ON fle_scope TO kilo_rotator;
GRANT SELECT, INSERT, UPDATE ON fle_rotations, fle_rotation_approvals, fle_rotation_passes, fle_rotation_batches
    TO kilo_rotator;
-- The platform's own encrypted table; a service grants what it has of its own.
GRANT SELECT, UPDATE (payload) ON events TO kilo_rotator;
GRANT SELECT ON dead_letters TO kilo_rotator;

-- The key maker makes a tenant's first key, and no other.
CREATE FUNCTION fle_keys_maker_makes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> 'active' OR NEW.messages_reserved <> 0 THEN
        RAISE EXCEPTION 'fle_keys: % may only make a tenant''s active key', current_user;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fle_keys_maker_makes BEFORE INSERT ON fle_keys
    FOR EACH ROW WHEN (current_user = 'kilo_keymaker') EXECUTE FUNCTION fle_keys_maker_makes();

-- Roles that serve only some tenants. A role that is not named here serves all of them.
CREATE TABLE fle_role_tenants (
    role name NOT NULL,
    tenant text NOT NULL,
    PRIMARY KEY (role, tenant)
);
GRANT SELECT ON fle_role_tenants TO PUBLIC;

CREATE FUNCTION fle_serves(asked text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM fle_role_tenants r WHERE r.role = current_user)
        OR EXISTS (SELECT FROM fle_role_tenants r WHERE r.role = current_user AND r.tenant = asked)
$$;
CREATE POLICY fle_by_tenant ON fle_keys USING (fle_serves(tenant)) WITH CHECK (fle_serves(tenant));
CREATE POLICY fle_by_tenant ON fle_tenants USING (fle_serves(tenant)) WITH CHECK (fle_serves(tenant));
CREATE POLICY fle_by_tenant ON fle_scope USING (fle_serves(tenant)) WITH CHECK (fle_serves(tenant));
CREATE POLICY fle_by_tenant ON fle_wraps
    USING (EXISTS (SELECT FROM fle_keys k WHERE k.id = key_id AND fle_serves(k.tenant)))
    WITH CHECK (EXISTS (SELECT FROM fle_keys k WHERE k.id = key_id AND fle_serves(k.tenant)));

-- For an administrator: SELECT fle_limit_role('my_service', '{acme,birch}'). The policies take hold with the first
-- limited role, since pg_dump refuses tables under them unless its role may look past them.
CREATE FUNCTION fle_limit_role(limited name, tenants text[]) RETURNS void LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'kilo_backup' AND NOT rolbypassrls) THEN
        ALTER ROLE kilo_backup BYPASSRLS;
    END IF;
    DELETE FROM fle_role_tenants r WHERE r.role = limited;
    INSERT INTO fle_role_tenants (role, tenant) SELECT limited, unnest(tenants);
    ALTER TABLE fle_keys ENABLE ROW LEVEL SECURITY;
    ALTER TABLE fle_wraps ENABLE ROW LEVEL SECURITY;
    ALTER TABLE fle_tenants ENABLE ROW LEVEL SECURITY;
    ALTER TABLE fle_scope ENABLE ROW LEVEL SECURITY;
END $$;
REVOKE EXECUTE ON FUNCTION fle_limit_role FROM PUBLIC;
