"""The Pulumi program: settings, wiring, outputs and policies."""
