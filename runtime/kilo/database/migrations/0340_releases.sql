-- What a release was when it was first seen live: the digest of each image that it names by a tag. A tag that moves
-- afterwards makes it another release, although nothing was deployed.

CREATE TABLE promotion_releases (
    stage text NOT NULL,
    -- SHA-256 of program version, configuration and the images' names.
    release text NOT NULL CHECK (release ~ '^[0-9a-f]{64}$'),
    image text NOT NULL,
    digest text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
    observed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stage, release, image)
);
CREATE FUNCTION promotion_releases_append_only() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'promotion_releases is append-only';
END $$;
CREATE TRIGGER promotion_releases_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotion_releases
    FOR EACH STATEMENT EXECUTE FUNCTION promotion_releases_append_only();

GRANT SELECT ON promotion_releases TO kilo_auditor;
