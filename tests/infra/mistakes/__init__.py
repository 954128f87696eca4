"""Mistakes in a stage's configuration: the file, the change that makes it, and what is to be said of it."""

from __future__ import annotations

from tests.infra.mistakes.bus import BUS
from tests.infra.mistakes.changes import Config, Mistakes
from tests.infra.mistakes.platform import PLATFORM
from tests.infra.mistakes.tenants import TENANTS

MISTAKES: Mistakes = {**PLATFORM, **TENANTS, **BUS}

__all__ = ["MISTAKES", "Config"]
