-- What binds a data key to whoever made it. A key's row has the digest of its secret, which every wrap must open
-- to, and nobody changes a wrap's bytes: wrapping again takes the old wrap away and adds another.

-- HMAC-SHA256 under the secret. None for keys that were made before this file; `kilo fle keys adopt` adds theirs.
ALTER TABLE fle_keys ADD COLUMN digest bytea CHECK (length(digest) = 32);
-- One secret is one key: of one tenant, in one format.
CREATE UNIQUE INDEX fle_keys_digest ON fle_keys (digest);

CREATE OR REPLACE FUNCTION fle_keys_only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'fle_keys: a key is destroyed by its wraps, and its row stays';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM fle_tenants t WHERE t.tenant = NEW.tenant AND t.shredded_at IS NOT NULL) THEN
            RAISE EXCEPTION 'fle_keys: tenant % was shredded and gets no key again', NEW.tenant;
        END IF;
        -- Only keys from before this rule have none, and no such key can be added.
        IF NEW.digest IS NULL THEN
            RAISE EXCEPTION 'fle_keys: a key is made with the digest of its secret';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.messages_reserved < OLD.messages_reserved
       OR (NEW.id, NEW.tenant, NEW.purpose, NEW.format, NEW.version)
          IS DISTINCT FROM (OLD.id, OLD.tenant, OLD.purpose, OLD.format, OLD.version)
       OR (OLD.digest IS NOT NULL AND NEW.digest IS DISTINCT FROM OLD.digest)
       OR (OLD.state = 'destroyed' AND NEW.state <> 'destroyed')
       OR (OLD.state = 'retired' AND NEW.state NOT IN ('retired', 'destroyed')) THEN
        RAISE EXCEPTION 'fle_keys: a counter never falls, a key stays the one that was made, and a retired or'
            ' destroyed one never comes back';
    END IF;
    -- A block is at most what a process may encrypt before it fetches its keys again (CacheLimits.max_messages).
    IF NEW.messages_reserved > OLD.messages_reserved
       AND (OLD.state IN ('retired', 'destroyed') OR NEW.messages_reserved - OLD.messages_reserved > 1 << 27) THEN
        RAISE EXCEPTION 'fle_keys: messages are reserved in blocks, and of a key that may still be used';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION fle_wraps_never_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'fle_wraps: a wrap never changes; wrapping again adds one and takes the old one away';
    END IF;
    IF EXISTS (SELECT FROM fle_keys k WHERE k.id = NEW.key_id AND k.state IN ('retired', 'destroyed')) THEN
        RAISE EXCEPTION 'fle_wraps: key % is retired or destroyed and gets no wrap again', NEW.key_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fle_wraps_never_change BEFORE INSERT OR UPDATE ON fle_wraps
    FOR EACH ROW EXECUTE FUNCTION fle_wraps_never_change();

-- Whoever makes keys says so in the audit log, in the same transaction.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT acl.grantee::regrole AS role
        FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = 'fle_keys'::regclass AND acl.grantee NOT IN (0, c.relowner) AND acl.privilege_type = 'INSERT'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT ON fle_audit TO %s', held.role);
    END LOOP;
END $$;
