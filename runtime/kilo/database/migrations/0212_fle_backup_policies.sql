-- A role that is limited to some tenants brings row-level security, for which managed PostgreSQL gives kilo_backup no
-- BYPASSRLS. It reads every row by these policies instead, and makes sure of that before it dumps.
CREATE POLICY fle_backup ON fle_keys FOR SELECT TO kilo_backup USING (true);
CREATE POLICY fle_backup ON fle_wraps FOR SELECT TO kilo_backup USING (true);
CREATE POLICY fle_backup ON fle_tenants FOR SELECT TO kilo_backup USING (true);
CREATE POLICY fle_backup ON fle_scope FOR SELECT TO kilo_backup USING (true);

CREATE OR REPLACE FUNCTION fle_limit_role(limited name, tenants text[]) RETURNS void LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM fle_role_tenants r WHERE r.role = limited;
    INSERT INTO fle_role_tenants (role, tenant) SELECT limited, unnest(tenants);
    ALTER TABLE fle_keys ENABLE ROW LEVEL SECURITY;
    ALTER TABLE fle_wraps ENABLE ROW LEVEL SECURITY;
    ALTER TABLE fle_tenants ENABLE ROW LEVEL SECURITY;
    ALTER TABLE fle_scope ENABLE ROW LEVEL SECURITY;
END $$;

-- Which tenants a role serves was looked up by the session's search_path, so a limited role's own temporary
-- fle_role_tenants was taken for the table, and pg_dump, which has no path, found none. A body like this is bound when
-- it is made.
CREATE OR REPLACE FUNCTION fle_serves(asked text) RETURNS boolean LANGUAGE sql STABLE
    RETURN NOT EXISTS (SELECT FROM fle_role_tenants r WHERE r.role = current_user)
        OR EXISTS (SELECT FROM fle_role_tenants r WHERE r.role = current_user AND r.tenant = asked);

-- The guards of keys and wraps looked tables up likewise, so that a temporary fle_tenants of the key maker's let a
-- shredded tenant have a key again.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname LIKE 'fle\_%' AND l.lanname = 'plpgsql'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', one.name, current_schema());
    END LOOP;
END $$;
