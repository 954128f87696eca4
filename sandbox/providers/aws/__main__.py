"""``pulumi-resource-aws``: started by the engine."""

from importlib.metadata import version

from sandbox.providers.aws import kms, s3
from sandbox.providers.aws.clients import SESSION
from sandbox.providers.aws.functions import FUNCTIONS
from sandbox.providers.base import Provider
from sandbox.providers.server import serve

PROVIDER = Provider("aws", version("pulumi-aws"), [*kms.TYPES, *s3.TYPES], FUNCTIONS, SESSION.configure)

if __name__ == "__main__":
    serve(PROVIDER)
