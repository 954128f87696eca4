"""``pulumi-resource-random``: started by the engine."""

from importlib.metadata import version

from sandbox.providers.base import Provider
from sandbox.providers.random.generated import TYPES
from sandbox.providers.server import serve

if __name__ == "__main__":
    serve(Provider("random", version("pulumi-random"), TYPES))
