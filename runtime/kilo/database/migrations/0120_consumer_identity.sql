-- What an event is to a consumer: its tenant, its fingerprint, and which use of that fingerprint. A key that is
-- used again after its window is an event of its own, and two tenants may use the same key.
ALTER TABLE inbox DROP CONSTRAINT inbox_pkey;
ALTER TABLE inbox ADD PRIMARY KEY (consumer, tenant, fingerprint, created_at);

ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_consumer_fingerprint_key;
ALTER TABLE dead_letters ADD UNIQUE (consumer, tenant, fingerprint, created_at);
-- Order is kept within an aggregate of a tenant.
DROP INDEX dead_letters_open_idx;
CREATE INDEX dead_letters_open_idx ON dead_letters (consumer, tenant, aggregate, aggregate_id, id)
    WHERE holds AND state IN ('retrying', 'parked', 'waiting', 'replaying');
-- Attempts are counted over all replays; a policy counts from the last one.
ALTER TABLE dead_letters ADD COLUMN attempts_before_replay integer NOT NULL DEFAULT 0;

-- A handler that commits by itself would commit the inbox rows of the whole batch, and events whose handlers were
-- never called would count as handled. Only the consumer commits: it says so at the end of its transaction.
CREATE FUNCTION consumer_positions_check_commit() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('kilo.consumer_commits', true) IS DISTINCT FROM 'on' THEN
        RAISE 'only the consumer commits its transaction: a handler must not' USING ERRCODE = '2D000';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER consumer_positions_commit AFTER INSERT OR UPDATE ON consumer_positions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION consumer_positions_check_commit();
