-- Leases: what one process of several may do, until a time by the server's clock. A lease that ended is taken
-- over with a new epoch, and its old holder's writes, which name theirs, are refused from then on.
CREATE TABLE leases (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    epoch      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);
-- One sequence for all: an epoch never occurs twice, also not after a lease's row was deleted.
CREATE SEQUENCE lease_epoch_seq;

GRANT SELECT, INSERT, UPDATE, DELETE ON leases TO kilo_worker, kilo_consumer;
GRANT USAGE ON SEQUENCE lease_epoch_seq TO kilo_worker, kilo_consumer;
-- Nobody takes what belongs to another workload.
ALTER TABLE leases ENABLE ROW LEVEL SECURITY;
CREATE POLICY leases_of_the_outbox ON leases TO kilo_worker USING (starts_with(name, 'outbox/'));
CREATE POLICY leases_of_consumers ON leases TO kilo_consumer USING (starts_with(name, 'consumer/'));
