"""Puts the ``aws`` provider together."""

from __future__ import annotations

from importlib.metadata import version

from sandbox.providers.aws import ecr, events, iam, kms, s3, secretsmanager, sqs
from sandbox.providers.aws.clients import SESSION
from sandbox.providers.aws.functions import FUNCTIONS
from sandbox.providers.base import Provider

_MODULES = (ecr, events, iam, kms, s3, secretsmanager, sqs)


def make() -> Provider:
    """The provider, not configured yet."""
    types = [resource_type for module in _MODULES for resource_type in module.TYPES]
    return Provider("aws", version("pulumi-aws"), types, FUNCTIONS, SESSION.configure)
