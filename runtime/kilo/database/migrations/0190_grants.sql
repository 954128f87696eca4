-- Least privilege a role; the roles themselves are made by `kilo db migrate` before any migration runs.
GRANT USAGE ON SCHEMA public TO kilo_ingest, kilo_worker, kilo_consumer, kilo_cdc;

GRANT INSERT, SELECT ON outbox TO kilo_ingest;
GRANT USAGE ON SEQUENCE outbox_id_seq TO kilo_ingest;
GRANT SELECT ON outbox_cdc_aggregates TO kilo_ingest;
GRANT SELECT, INSERT, UPDATE ON events TO kilo_ingest;

GRANT SELECT, UPDATE (dequeued_at) ON outbox TO kilo_worker;
GRANT SELECT, UPDATE ON outbox_slots TO kilo_worker;
GRANT SELECT ON SEQUENCE outbox_id_seq TO kilo_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_workers, outbox_stuck TO kilo_worker;
GRANT SELECT ON outbox_cdc_aggregates TO kilo_worker;
GRANT EXECUTE ON FUNCTION kilo_create_partitions, kilo_drop_partitions TO kilo_worker;
-- Whose transaction holds the watermark, and how far the slot lags, are told to monitors only.
GRANT pg_monitor TO kilo_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON inbox, consumer_positions, projection TO kilo_consumer;
GRANT SELECT, INSERT, UPDATE, DELETE ON dead_letters, dead_letter_edits TO kilo_consumer;
GRANT EXECUTE ON FUNCTION kilo_create_partitions, kilo_drop_partitions TO kilo_consumer;

GRANT SELECT ON outbox TO kilo_cdc;
GRANT pg_read_all_data TO kilo_backup;
