"""Puts the ``gcp`` provider together."""

from __future__ import annotations

from importlib.metadata import version

from sandbox.providers.base import Provider
from sandbox.providers.gcp import recorded, storage
from sandbox.providers.gcp.functions import FUNCTIONS
from sandbox.providers.gcp.project import PROJECT


def make() -> Provider:
    """The provider, not configured yet."""
    types = [*storage.TYPES, *recorded.TYPES]
    return Provider("gcp", version("pulumi-gcp"), types, FUNCTIONS, PROJECT.configure)
