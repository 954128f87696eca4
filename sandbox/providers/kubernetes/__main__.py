"""``pulumi-resource-kubernetes``: started by the engine."""

from importlib.metadata import version

from sandbox.providers.kubernetes.provider import KubernetesServicer
from sandbox.providers.server import run

if __name__ == "__main__":
    run(KubernetesServicer(version("pulumi-kubernetes")))
