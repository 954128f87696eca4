"""``pulumi-resource-gcp``: started by the engine."""

from sandbox.providers.gcp.provider import make
from sandbox.providers.server import serve

if __name__ == "__main__":
    serve(make())
