-- Key rotations: what was planned, who approved it, and how far the backfill is.

CREATE TABLE fle_rotations (
    -- SHA-256 of the plan's canonical text: whoever approves names exactly what will run.
    plan_hash text PRIMARY KEY CHECK (plan_hash ~ '^[0-9a-f]{64}$'),
    tenant text NOT NULL,
    plan text NOT NULL,
    requester text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('planned', 'running', 'paused', 'verified', 'finalized', 'rolling-back', 'rolled-back')),
    old_key_id bigint REFERENCES fle_keys (id),
    new_key_id bigint REFERENCES fle_keys (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When writers were last pointed at another key; finalize waits for the slowest of them.
    switched_at timestamptz,
    finished_at timestamptz
);
CREATE UNIQUE INDEX fle_rotations_one_open ON fle_rotations (tenant)
    WHERE state NOT IN ('finalized', 'rolled-back');

CREATE TABLE fle_rotation_approvals (
    plan_hash text NOT NULL REFERENCES fle_rotations (plan_hash),
    principal text NOT NULL,
    public_key text NOT NULL,
    statement text NOT NULL,
    signature bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plan_hash, principal),
    UNIQUE (plan_hash, public_key)
);

-- One pass over one table: workers claim the next range of rows by moving next_row forward.
CREATE TABLE fle_rotation_passes (
    plan_hash text NOT NULL REFERENCES fle_rotations (plan_hash),
    table_name text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('forward', 'back')),
    pass integer NOT NULL,
    next_row text,
    exhausted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (plan_hash, table_name, direction, pass)
);

-- Evidence of each batch, written in the transaction that changed its rows.
CREATE TABLE fle_rotation_batches (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_hash text NOT NULL REFERENCES fle_rotations (plan_hash),
    table_name text NOT NULL,
    direction text NOT NULL,
    pass integer NOT NULL,
    rows_read integer NOT NULL,
    rows_changed integer NOT NULL,
    -- Keyed digest of the plaintexts, which were equal before and after.
    digest bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX fle_rotation_batches_plan ON fle_rotation_batches (plan_hash, direction);
