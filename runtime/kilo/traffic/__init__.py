"""The entrance: per-tenant routes, weights, limits and timeouts, rendered as Envoy configuration."""
