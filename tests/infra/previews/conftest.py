"""The registries of the mirror's tests."""

from tests.runtime.registry.conftest import no_login, proxied, shelf, with_api, without_api

__all__ = ["no_login", "proxied", "shelf", "with_api", "without_api"]
