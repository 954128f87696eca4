"""Small parts that several renderers share: durations, type URLs, file sources."""

from __future__ import annotations

from typing import Any

from kilo.traffic.settings import CONFIG_DIRECTORY

_TYPE_PREFIX = "type.googleapis.com/"

METADATA = "kilo"
"""The namespace of what routes and clusters say of themselves."""

Json = dict[str, Any]
"""A JSON object in Envoy's v3 API (https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api)."""


def typed(message: str, **fields: object) -> Json:
    """Make a google.protobuf.Any in JSON: ``message`` is the protobuf type's full name."""
    return {"@type": _TYPE_PREFIX + message, **fields}


def duration(milliseconds: int) -> str:
    """Render a google.protobuf.Duration."""
    return f"{milliseconds / 1000:.3f}s"


def file_source(file: str) -> Json:
    """Read a resource from ``file`` and again whenever the mounted ConfigMap is swapped.

    Kubernetes publishes a ConfigMap by renaming a symbolic link in the mount's directory, and Envoy
    acts on renames alone, so it is the directory that is watched.
    """
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": f"{CONFIG_DIRECTORY}/{file}",
            "watched_directory": {"path": CONFIG_DIRECTORY},
        },
    }


def discovery(*resources: Json) -> Json:
    """Wrap resources as a DiscoveryResponse, the form of a file that Envoy watches."""
    return {"resources": list(resources)}
