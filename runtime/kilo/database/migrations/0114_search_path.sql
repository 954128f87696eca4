-- Functions found their tables by the search_path of whoever migrated, and PostgreSQL looks into the session's
-- temporary schema first unless a path names it: a writer's own temporary `outbox_fingerprints` or
-- `outbox_cdc_aggregates` was taken for the table, by functions that run as their owner.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p, unnest(p.proconfig) AS setting
        WHERE p.pronamespace = current_schema()::regnamespace
            AND p.proname ~ '^((outbox|inbox|events|fle)_|(make|tune|drop_old)_partition)'
            AND setting LIKE 'search_path=%' AND setting NOT LIKE '%pg_temp'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', one.name, current_schema());
    END LOOP;
END $$;
