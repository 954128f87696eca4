-- What a rotation changes is said field by field, and by the run of an approved plan alone. A plan is signed by its
-- requester, and what lowers protection again has approvals of its own.

-- encrypted: writers encrypt the field, whatever the stage's configuration says.
-- plain_accepted: readers take plain values of it too, while a rotation moves it into scope or out.
ALTER TABLE fle_scope
    ADD COLUMN encrypted boolean NOT NULL DEFAULT true,
    ADD COLUMN plain_accepted boolean NOT NULL DEFAULT false;

-- Who encrypts notes the field, and nothing else about it.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT acl.grantee::regrole AS role
        FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'fle_scope'::regclass AND acl.grantee NOT IN (0, c.relowner, 'kilo_rotator'::regrole)
          AND acl.privilege_type = 'INSERT'
    LOOP
        EXECUTE format('REVOKE INSERT ON fle_scope FROM %s', held.role);
        EXECUTE format('GRANT INSERT (tenant, field) ON fle_scope TO %s', held.role);
    END LOOP;
END $$;

ALTER TABLE fle_rotations
    ADD COLUMN signature bytea,
    -- The tenant's fields that lay encrypted before the rotation changed any.
    ADD COLUMN scope_before text[];
ALTER TABLE fle_rotations DROP CONSTRAINT fle_rotations_state_check;
ALTER TABLE fle_rotations ADD CONSTRAINT fle_rotations_state_check CHECK (state IN
    ('planned', 'announced', 'running', 'paused', 'verified', 'finalized', 'rolling-back', 'rolled-back'));

-- Until now the requester's signature was in the log alone.
UPDATE fle_rotations r SET signature = decode(e.entry::jsonb -> 'details' ->> 'signature', 'hex')
FROM fle_audit e
WHERE e.entry::jsonb ->> 'action' = 'plan' AND e.entry::jsonb -> 'details' ->> 'plan' = r.plan_hash
  AND e.entry::jsonb -> 'details' ->> 'signature' ~ '^([0-9a-f]{2})+$';
UPDATE fle_rotations r
SET scope_before = ARRAY(SELECT s.field FROM fle_scope s WHERE s.tenant = r.tenant AND s.since < r.created_at)
WHERE state NOT IN ('planned', 'finalized', 'rolled-back');

ALTER TABLE fle_rotation_approvals
    ADD COLUMN action text NOT NULL DEFAULT 'approve' CHECK (action IN ('approve', 'approve-rollback', 'rollback'));
ALTER TABLE fle_rotation_approvals DROP CONSTRAINT fle_rotation_approvals_pkey;
-- Whose keys they are is looked at when approvals are counted; here, a row that counts for nothing could be in
-- the way of one that does.
ALTER TABLE fle_rotation_approvals DROP CONSTRAINT fle_rotation_approvals_plan_hash_public_key_key;
ALTER TABLE fle_rotation_approvals ADD PRIMARY KEY (plan_hash, action, principal);

-- A tenant's rotation that is under way: of its fields alone what was said of all of them.
UPDATE fle_scope s
SET plain_accepted = true,
    encrypted = CASE
        WHEN own.kind = 'adopt' THEN own.state <> 'rolling-back' OR s.since < own.created_at
        ELSE own.state = 'rolling-back'
    END
FROM (
    SELECT r.tenant, r.state, r.created_at, r.plan::jsonb ->> 'kind' AS kind, named.field
    FROM fle_rotations r, LATERAL (
        SELECT jsonb_object_keys(t -> 'columns') AS field FROM jsonb_array_elements(r.plan::jsonb -> 'tables') t
        UNION
        SELECT jsonb_array_elements_text(d.value)
        FROM jsonb_array_elements(r.plan::jsonb -> 'tables') t, jsonb_each(t -> 'documents') d
    ) named
    WHERE r.state IN ('running', 'paused', 'verified', 'rolling-back')
) own
WHERE own.kind IN ('adopt', 'release') AND s.tenant = own.tenant AND s.field = own.field;
-- What planned rotations had said of a tenant holds no longer.
UPDATE fle_tenants SET moving = NULL WHERE moving IS NOT NULL;
