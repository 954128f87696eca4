"""``make accept``: the sprint's whole acceptance in the sandbox, from nothing to a verified pack."""
