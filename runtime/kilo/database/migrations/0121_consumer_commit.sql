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
