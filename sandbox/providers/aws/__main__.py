"""``pulumi-resource-aws``: started by the engine."""

from sandbox.providers.aws.provider import make
from sandbox.providers.server import serve

if __name__ == "__main__":
    serve(make())
