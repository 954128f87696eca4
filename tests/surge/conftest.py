"""The gateway of the quick tests, for those that take longer."""

from tests.runtime.traffic.conftest import make_gateway, stable, trial

__all__ = ["make_gateway", "stable", "trial"]
