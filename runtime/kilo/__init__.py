"""Kilo: what services import, what the platform runs, and what an operator calls.

- **A service imports** the packages ``kilo.outbox``, ``kilo.client``, ``kilo.fle``, ``kilo.consumer``,
  ``kilo.web``, ``kilo.flags``, ``kilo.schemas`` and ``kilo.bus`` by their own names, the modules
  ``kilo.outbox.sqlalchemy_session``, ``kilo.outbox.asyncpg_connection``, ``kilo.fle.integrations``,
  ``kilo.fle.kms``, ``kilo.web.consuming`` and ``kilo.database.service``, and ``kilo.context``,
  ``kilo.contract``, ``kilo.environment``, ``kilo.errors``, ``kilo.health`` and ``kilo.tenancy``; its tests
  import ``kilo.testing`` and ``kilo.testing.events``. This is the SDK: it changes by the changelog alone.
  What lies below these packages is their own affair. The page "What a service imports" has each name.
- **An operator calls** modules named ``cli``, packages named ``commands``, and ``kilo.changes``,
  ``kilo.evidence``, ``kilo.goals``, ``kilo.outputs``, ``kilo.promotion`` and ``kilo.tour`` with what
  is under them. Nothing else imports them.
- **The platform runs** the rest, as processes that are commands too (``kilo outbox worker``).

A service's import loads neither of the others, nor the libraries that they stand on. The import rules in
the checkout's ``pyproject.toml`` say this once more, and ``make check`` keeps them; :mod:`kilo.extras` says
what is installed for which of them.
"""
