"""The clouds' servers and an example of each provider, driven through the real engine."""

from __future__ import annotations

from tests.sandbox.providers.conftest import blank, credentials, endpoints, example, project

__all__ = ["blank", "credentials", "endpoints", "example", "project"]
