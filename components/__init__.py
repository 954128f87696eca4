"""Component resources: one a file, no stage names, no reading of configuration."""
