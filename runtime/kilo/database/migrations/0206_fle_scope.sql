-- What lies encrypted: a tenant's fields from their first encrypted value until a release of them is final.
-- A field that leaves the stage's configuration without one stays encrypted, and stays readable.

CREATE TABLE fle_scope (
    tenant text NOT NULL,
    field text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, field)
);

-- Whoever reads the key table reads this, and whoever makes keys notes what they encrypt.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT acl.privilege_type, acl.grantee::regrole AS role
        FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'fle_keys'::regclass AND acl.grantee NOT IN (0, c.relowner)
          AND acl.privilege_type IN ('SELECT', 'INSERT')
    LOOP
        EXECUTE format('GRANT %s ON fle_scope TO %s', held.privilege_type, held.role);
    END LOOP;
END $$;
