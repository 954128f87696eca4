-- What verification compares with: of each converted value two keyed digests, of its place and stored text
-- and of its place and plaintext, 16 bytes each. Dropped when the rotation ends; the audit log keeps the sums.

ALTER TABLE fle_rotation_batches ADD COLUMN evidence bytea[];
-- Random bytes don't compress: trying costs time alone.
ALTER TABLE fle_rotation_batches ALTER COLUMN evidence SET STORAGE EXTERNAL;
