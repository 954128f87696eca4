-- kilo: no-transaction
-- In steps that are committed each, so that writers go on. What is there already stays as it is.
DO $$
DECLARE
    above bigint := -9223372036854775808;
    last  bigint;
BEGIN
    LOOP
        WITH step AS (
            SELECT fingerprint, tenant, id, created_at, content_digest FROM outbox
            WHERE id > above ORDER BY id LIMIT 20000
        ), written AS (
            INSERT INTO outbox_fingerprints SELECT * FROM step ON CONFLICT DO NOTHING
        )
        SELECT max(id) INTO last FROM step;
        EXIT WHEN last IS NULL;
        above := last;
        COMMIT;
    END LOOP;
END $$;
