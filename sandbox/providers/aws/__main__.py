"""``pulumi-resource-aws``: started by the engine."""

from importlib.metadata import version

from sandbox.providers.aws import ecr, events, iam, kms, s3, secretsmanager, sqs
from sandbox.providers.aws.clients import SESSION
from sandbox.providers.aws.functions import FUNCTIONS
from sandbox.providers.base import Provider
from sandbox.providers.server import serve

_MODULES = (ecr, events, iam, kms, s3, secretsmanager, sqs)

if __name__ == "__main__":
    types = [resource_type for module in _MODULES for resource_type in module.TYPES]
    serve(Provider("aws", version("pulumi-aws"), types, FUNCTIONS, SESSION.configure))
