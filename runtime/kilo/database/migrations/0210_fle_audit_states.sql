-- Before the log is signed, it is compared with the tables whose story it tells; without wraps.
GRANT SELECT ON fle_keys, fle_tenants, fle_scope, fle_rotations, fle_rotation_approvals TO kilo_auditor;
