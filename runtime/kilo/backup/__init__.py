"""Portable backups: one pg_dump, encrypted before it leaves, to a locked store in each of two clouds.

A backup is a few objects and a manifest. The manifest is written last, in each store on its own, so
a store has a backup exactly when it has the manifest; whatever a killed run left behind belongs to
no manifest and counts for nothing. Keys are created once and never overwritten, as locked stores
demand: a manifest's key carries its place in the chain and its digest.

Nothing of a backup touches a disk here: the dump is read, encrypted and sent to both stores in
pieces, and restored in the same way. Neither store is trusted: contents are encrypted under a data
key that only the backup key of the stage can unwrap, and every manifest is signed by a key that never
leaves KMS and names the manifests before it.

Left out: physical backups and point-in-time recovery, which a managed PostgreSQL brings and which
can't be restored in another cloud.
"""
