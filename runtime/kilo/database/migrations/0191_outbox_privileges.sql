-- After 0190, which in a new database grants what these narrow: a writer gives what the database does not know
-- itself, a worker marks rows and leases slots, and each role keeps its own table's partitions.
REVOKE INSERT ON outbox FROM kilo_ingest;
GRANT INSERT (tenant, aggregate, aggregate_id, kind, payload, fingerprint, traceparent, content_digest)
    ON outbox TO kilo_ingest;
REVOKE ALL ON SEQUENCE outbox_id_seq FROM kilo_ingest;
REVOKE ALL ON outbox_cdc_aggregates FROM kilo_worker;

REVOKE UPDATE ON outbox_slots FROM kilo_worker;
GRANT UPDATE (owner, epoch) ON outbox_slots TO kilo_worker;

DROP TABLE outbox_workers, outbox_stuck;
DROP FUNCTION kilo_create_partitions, kilo_drop_partitions, kilo_tune_partition;
