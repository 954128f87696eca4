"""What lies in the clouds: identities, keys, registries and locked buckets."""
