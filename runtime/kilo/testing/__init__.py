"""Fixtures for a service's own tests, on real servers: PostgreSQL and NATS from wheels, no containers.

In the service's ``conftest.py``::

    pytest_plugins = ["kilo.testing"]

- ``kilo_database_url``: a fresh database with Kilo's tables, copied from a template in tens of milliseconds.
- ``kilo_template_database``: the name of that template, which takes a service's migrations once a session.
- ``kilo_nats_url``: a NATS server with JetStream and the stage's stream declared.
- ``kilo_outputs``: outputs of a stage named ``test`` with the tenants ``acme``, whose ``email`` and ``phone``
  are encrypted, and ``globex``; they name the two servers above.
- ``kilo_kms``: KMS clients that stay in this process, for :meth:`kilo.fle.FieldCipher.from_outputs`.

One server of each runs a session. Left out on purpose: a fake of PostgreSQL or of the bus. ``kilo_kms`` is
the one thing here that is not real: it binds a wrap to its key and context as a KMS does, and proves nothing
about key policies.
"""

from kilo.extras import requires

with requires("testing"):
    from kilo.testing.fixtures import (
        kilo_database_url,
        kilo_kms,
        kilo_nats_server,
        kilo_nats_url,
        kilo_outputs,
        kilo_postgres,
        kilo_template_database,
    )

__all__ = [
    "kilo_database_url",
    "kilo_kms",
    "kilo_nats_server",
    "kilo_nats_url",
    "kilo_outputs",
    "kilo_postgres",
    "kilo_template_database",
]
