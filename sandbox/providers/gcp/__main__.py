"""``pulumi-resource-gcp``: started by the engine."""

from importlib.metadata import version

from sandbox.providers.base import Provider
from sandbox.providers.gcp import recorded, storage
from sandbox.providers.gcp.functions import FUNCTIONS
from sandbox.providers.gcp.project import PROJECT
from sandbox.providers.server import serve

if __name__ == "__main__":
    types = [*storage.TYPES, *recorded.TYPES]
    serve(Provider("gcp", version("pulumi-gcp"), types, FUNCTIONS, PROJECT.configure))
