-- What the inbox and dead letters know an event by is its occurrence: tenant, fingerprint and creation time.
-- A key that is used again after its window, or by another tenant, is an event of its own.
ALTER TABLE inbox
    DROP CONSTRAINT inbox_pkey,
    ADD PRIMARY KEY (consumer, fingerprint, created_at, tenant);
ALTER TABLE dead_letters
    DROP CONSTRAINT dead_letters_consumer_fingerprint_key,
    ADD CONSTRAINT dead_letters_occurrence_key UNIQUE (consumer, tenant, fingerprint, created_at),
    -- Attempts before the last replay: `attempts` counts all, a policy those since.
    ADD COLUMN attempts_before integer NOT NULL DEFAULT 0;

-- The ordering key is tenant, aggregate and aggregate id: nothing of one tenant is held behind another's.
DROP INDEX dead_letters_open_idx;
CREATE INDEX dead_letters_open_idx ON dead_letters (consumer, tenant, aggregate, aggregate_id, id)
    WHERE holds AND state IN ('retrying', 'parked', 'waiting', 'replaying');

-- Drivers quote values in their messages, decrypted ones too. Of what was stored so far the class is left.
UPDATE dead_letters SET error = split_part(error, ':', 1) WHERE position(':' IN error) > 0;
