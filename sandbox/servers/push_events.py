"""Turns a registry's notifications into the events that ECR puts on EventBridge.

The registry posts to :data:`PATH`; each pushed manifest becomes an "ECR Image Action" event
(https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html), put by an ordinary
PutEvents request, so that it is journalled like any other and reaches the queues whose rules match.
As with ECR, events are best effort.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ACCOUNT = "123456789012"
PATH = "/sandbox/registry-events"
_MANIFESTS = (
    "application/vnd.oci.image.manifest",
    "application/vnd.oci.image.index",
    "application/vnd.docker.distribution.manifest",
    "application/vnd.oci.artifact.manifest",
)
_BATCH = 10  # PutEvents takes no more.


class PushEvents:
    """A WSGI application before moto's.

    Args:
        application: what answers everything else, PutEvents included.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a notification, pass on everything else."""
        if not environ["PATH_INFO"].startswith(PATH):
            return self._application(environ, start_response)
        region = environ["PATH_INFO"].removeprefix(PATH).strip("/") or "us-east-1"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        entries = list(to_entries(json.loads(body), region))
        for start in range(0, len(entries), _BATCH):
            self._put(environ, region, entries[start : start + _BATCH])
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    def _put(self, environ: dict[str, Any], region: str, entries: list[dict[str, Any]]) -> None:
        scope = f"sandbox/20260101/{region}/events/aws4_request"
        request = {
            **{k: v for k, v in environ.items() if not k.startswith(("HTTP_", "wsgi.", "werkzeug."))},
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/",
            "REQUEST_URI": "/",
            "RAW_URI": "/",
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/x-amz-json-1.1",
            "HTTP_HOST": environ.get("HTTP_HOST", "127.0.0.1"),
            "HTTP_X_AMZ_TARGET": "AWSEvents.PutEvents",
            "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
            "wsgi.url_scheme": "http",
            "wsgi.input": _Body(json.dumps({"Entries": entries}).encode()),
            "wsgi.input_terminated": True,
        }
        list(self._application(request, lambda *_: None))


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int = -1) -> bytes:
        del size
        return self._content


def to_entries(notification: dict[str, Any], region: str) -> Iterator[dict[str, Any]]:
    """The PutEvents entries of a registry's notification, one a pushed manifest."""
    for event in notification.get("events", ()):
        target = event.get("target", {})
        media_type = target.get("mediaType", "")
        if event.get("action") != "push" or not media_type.startswith(_MANIFESTS):
            continue
        repository = target["repository"]
        detail = {
            "action-type": "PUSH",
            "result": "SUCCESS",
            "repository-name": repository,
            "image-digest": target["digest"],
            "manifest-media-type": media_type,
            **({"image-tag": target["tag"]} if target.get("tag") else {}),
        }
        yield {
            "Source": "aws.ecr",
            "DetailType": "ECR Image Action",
            "Detail": json.dumps(detail),
            "Resources": [f"arn:aws:ecr:{region}:{ACCOUNT}:repository/{repository}"],
        }
