"""``kilo traffic``: ramps of features, from the stage's file through the engine into every gateway."""
