"""The HTTP entrance for events: what is acknowledged is committed, with its outbox row in one transaction."""
