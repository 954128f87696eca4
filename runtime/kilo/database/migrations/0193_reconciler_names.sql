-- What the code calls them: up to where change capture's rows are marked as dispatched.
ALTER TABLE outbox_reconciler RENAME COLUMN marked TO dispatched_position;
ALTER TABLE outbox_reconciler RENAME COLUMN marked_stored_at TO dispatched_stored_at;
