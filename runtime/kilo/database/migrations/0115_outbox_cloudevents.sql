-- What change capture writes into `ce-id` and `ce-subject` over NATS: its transforms take a column as it is and can't
-- percent-encode, as the binding wants it, so that a `%` or `"` arrived otherwise than by the worker. Of the bytes that
-- ids may have (0105), only these two are encoded.
SET LOCAL lock_timeout = '30s';
LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;
ALTER TABLE outbox
    ADD COLUMN ce_id      text,  -- of rows of change capture alone
    ADD COLUMN ce_subject text;
-- As in 0110: rows in the WAL before this position do not have them.
UPDATE outbox_capture_from SET position = pg_current_wal_insert_lsn();

CREATE FUNCTION outbox_cloudevent() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.ce_id := replace(replace(NEW.message_id, '%', '%25'), '"', '%22');
    NEW.ce_subject := replace(replace(NEW.aggregate_id, '%', '%25'), '"', '%22');
    RETURN NEW;
END $$;
REVOKE EXECUTE ON FUNCTION outbox_cloudevent FROM PUBLIC;
-- After outbox_before_insert, by its name: that one says who publishes.
CREATE TRIGGER outbox_before_insert_cloudevent BEFORE INSERT ON outbox
    FOR EACH ROW WHEN (NEW.publisher = 'cdc') EXECUTE FUNCTION outbox_cloudevent();
