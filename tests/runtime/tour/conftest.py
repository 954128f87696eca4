"""The same registries as the mirror's tests have."""

from tests.runtime.registry.conftest import no_login, shelf, with_api, without_api

__all__ = ["no_login", "shelf", "with_api", "without_api"]
