-- What no one who writes to the key table can take back: messages that were counted, a key that was
-- destroyed, a tenant that was shredded. And the rights to count what lies encrypted.

CREATE FUNCTION fle_keys_only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'fle_keys: a key is destroyed by its wraps, and its row stays';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM fle_tenants t WHERE t.tenant = NEW.tenant AND t.shredded_at IS NOT NULL) THEN
            RAISE EXCEPTION 'fle_keys: tenant % was shredded and gets no key again', NEW.tenant;
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.messages_reserved < OLD.messages_reserved
       OR (NEW.id, NEW.tenant, NEW.purpose, NEW.format, NEW.version)
          IS DISTINCT FROM (OLD.id, OLD.tenant, OLD.purpose, OLD.format, OLD.version)
       OR (OLD.state = 'destroyed' AND NEW.state <> 'destroyed')
       OR (OLD.state = 'retired' AND NEW.state NOT IN ('retired', 'destroyed')) THEN
        RAISE EXCEPTION 'fle_keys: a counter never falls, and a retired or destroyed key never comes back';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fle_keys_only_forward BEFORE INSERT OR UPDATE OR DELETE ON fle_keys
    FOR EACH ROW EXECUTE FUNCTION fle_keys_only_forward();

GRANT SELECT ON events, fle_rotations TO kilo_consumer;
