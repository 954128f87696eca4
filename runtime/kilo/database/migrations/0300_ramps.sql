-- Ramps of features: where each stands, and the record of each step. The weight itself lies in the stage's file.

CREATE TABLE ramps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stage text NOT NULL,
    tenant text NOT NULL,
    feature text NOT NULL,
    steps text[] NOT NULL CHECK (cardinality(steps) > 0),
    hold_seconds double precision NOT NULL CHECK (hold_seconds >= 0),
    minimum_requests integer NOT NULL CHECK (minimum_requests >= 0),
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'paused', 'reverting', 'done', 'reverted', 'overridden')),
    -- What the feature had before, which a revert goes back to; what this ramp has set last; and what it has begun
    -- to set: written before the stage's file is, and cleared when every gateway has it.
    weight_before text NOT NULL,
    weight text NOT NULL,
    pending text,
    pending_since timestamptz,
    in_force_since timestamptz,
    reason text NOT NULL DEFAULT '',
    -- The gate's last figures, for whoever looks on.
    figures jsonb,
    started_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CHECK ((state IN ('done', 'reverted', 'overridden')) = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX ramps_one_at_a_time ON ramps (stage, tenant, feature) WHERE ended_at IS NULL;

CREATE TABLE ramp_steps (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ramp bigint NOT NULL REFERENCES ramps,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,
    act text NOT NULL,
    weight_from text NOT NULL,
    weight_to text NOT NULL,
    reason text NOT NULL,
    figures jsonb,
    seconds double precision,
    program text NOT NULL
);
CREATE INDEX ramp_steps_of_ramp ON ramp_steps (ramp, id);
CREATE FUNCTION ramp_steps_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'ramp_steps is append-only';
END $$;
CREATE TRIGGER ramp_steps_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ramp_steps
    FOR EACH STATEMENT EXECUTE FUNCTION ramp_steps_append_only();

-- Which of them the audit log has.
CREATE TABLE ramp_steps_audited (step bigint PRIMARY KEY REFERENCES ramp_steps, entry bigint NOT NULL);

-- What dashboards mark: one line a step that changed a weight.
CREATE VIEW ramp_annotations AS
SELECT s.at, r.stage, r.tenant, r.feature, s.act, s.weight_from, s.weight_to, s.reason, s.who
FROM ramp_steps s JOIN ramps r ON r.id = s.ramp
WHERE s.act IN ('step', 'revert', 'overridden');

GRANT SELECT ON ramps, ramp_steps, ramp_steps_audited, ramp_annotations TO kilo_auditor;
