"""Ramps: a tenant's weight for a feature, raised step by step as long as its next version keeps up."""
