"""Images made from nothing and pushed by plain HTTP, with code that shares nothing with the mirror's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import urllib3

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = b"{}"

_http = urllib3.PoolManager(retries=False)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Shelf:
    """One repository of a registry, to push to and to look into."""

    url: str
    repository: str
    pushed: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.url.removeprefix('http://')}/{self.repository}"

    def blob(self, content: bytes) -> dict[str, Any]:
        digest = digest_of(content)
        if _http.request("HEAD", f"{self.url}/v2/{self.repository}/blobs/{digest}").status != 200:
            start = _http.request("POST", f"{self.url}/v2/{self.repository}/blobs/uploads/")
            location = start.headers["Location"]
            location = location if location.startswith("http") else self.url + location
            separator = "&" if "?" in location else "?"
            done = _http.request(
                "PUT",
                f"{location}{separator}digest={digest}",
                body=content,
                headers={"Content-Type": "application/octet-stream"},
            )
            assert done.status == 201, done.data
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    def put(self, document: dict[str, Any], tag: str | None = None) -> dict[str, Any]:
        content = json.dumps(document).encode()
        digest = digest_of(content)
        self.pushed.append(digest)
        done = _http.request(
            "PUT",
            f"{self.url}/v2/{self.repository}/manifests/{tag or digest}",
            body=content,
            headers={"Content-Type": document["mediaType"]},
        )
        assert done.status == 201, done.data
        return {"mediaType": document["mediaType"], "digest": digest, "size": len(content)}

    def image(self, *layers: bytes, tag: str | None = None, **more: Any) -> dict[str, Any]:
        """An image of ``layers``, unique by its configuration."""
        config = {**self.blob(json.dumps({"layers": [digest_of(layer) for layer in layers]}).encode())}
        config["mediaType"] = "application/vnd.oci.image.config.v1+json"
        return self.put(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config,
                "layers": [
                    {**self.blob(layer), "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
                    for layer in layers
                ],
                **more,
            },
            tag,
        )

    def index(self, *children: dict[str, Any], tag: str | None = None) -> dict[str, Any]:
        platforms = [
            {**child, "platform": {"os": "linux", "architecture": architecture}}
            for child, architecture in zip(children, ("amd64", "arm64", "riscv64"), strict=False)
        ]
        return self.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": platforms}, tag)

    def artifact(
        self, subject: dict[str, Any] | None, kind: str, content: bytes, tag: str | None = None
    ) -> dict[str, Any]:
        """An artifact that refers to ``subject``; where the registry has no API, its fallback tag is kept."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {**self.blob(EMPTY), "mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": [{**self.blob(content), "mediaType": kind}],
        }
        if subject:
            document["subject"] = subject
        descriptor = self.put(document, tag)
        if subject and self.referrers_by_api(subject["digest"]) is None:
            fallback = subject["digest"].replace(":", "-")
            held = self.manifest(fallback)
            entries = held["manifests"] if held else []
            entries.append({**descriptor, "artifactType": kind})
            self.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, fallback)
        return descriptor

    def manifest(self, reference: str) -> dict[str, Any] | None:
        answer = self._get(f"manifests/{reference}")
        return json.loads(answer.data) if answer.status == 200 else None

    def digest(self, reference: str) -> str | None:
        answer = self._get(f"manifests/{reference}")
        return digest_of(answer.data) if answer.status == 200 else None

    def tags(self) -> set[str]:
        answer = self._get("tags/list?n=10000")
        return set(json.loads(answer.data)["tags"] or ()) if answer.status == 200 else set()

    def referrers_by_api(self, digest: str) -> set[str] | None:
        answer = self._get(f"referrers/{digest}")
        return (
            {entry["digest"] for entry in json.loads(answer.data)["manifests"]}
            if answer.status == 200
            else None
        )

    def referrers(self, digest: str) -> set[str]:
        listed = self.referrers_by_api(digest)
        if listed is None:
            held = self.manifest(digest.replace(":", "-"))
            listed = {entry["digest"] for entry in held["manifests"]} if held else set()
        return listed

    def holds_whole(self, reference: str) -> bool:
        """Whether everything below a manifest is there with the right bytes."""
        document = self.manifest(reference)
        if document is None:
            return False
        if not all(self.holds_whole(child["digest"]) for child in document.get("manifests", ())):
            return False
        parts = [*document.get("layers", ()), *([document["config"]] if "config" in document else [])]
        return all(
            digest_of(self._get(f"blobs/{part['digest']}").data) == part["digest"]
            for part in parts
            if not part.get("urls")
        )

    def has_blob(self, digest: str) -> bool:
        return self._get(f"blobs/{digest}").status == 200

    def delete(self, digest: str, kind: str = "manifests") -> None:
        answer = _http.request("DELETE", f"{self.url}/v2/{self.repository}/{kind}/{digest}")
        assert answer.status in {202, 200}, answer.data

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        return _http.request(
            "GET",
            f"{self.url}/v2/{self.repository}/{path}",
            headers={"Accept": f"{INDEX}, {MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"},
        )
