-- When the bus had stored the message at a position that is remembered, in seconds since the epoch: by this a
-- reader sees that the stream was made anew or restored from before, even when it has grown past the position.
ALTER TABLE consumer_positions ADD COLUMN stored_at double precision;
ALTER TABLE outbox_reconciler ADD COLUMN marked_stored_at double precision;
