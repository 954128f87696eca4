"""The ``kubernetes`` provider's example for the conformance suite of all providers: a ConfigMap."""

from __future__ import annotations

import json

import httpx

from sandbox.cluster.client import connect
from tests.sandbox.providers.examples import Example, raw

FOLDER = "/api/v1/namespaces/default/configmaps"


def _program(body: str) -> str:
    return f"one = {body}\npulumi.export('name', one.metadata.name)\n"


def _config_map(data: str, owner: str) -> str:
    return (
        f"k8s.core.v1.ConfigMap('one', metadata={{'labels': {{'owner': '{owner}'}}}}, data={{'a': '{data}'}})"
    )


def example(url: str) -> Example:
    """Against the cluster at ``url``."""
    cluster = connect(url)

    def apply(name: str, manager: str, **sections: object) -> httpx.Response:
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **sections}
        return cluster.patch(
            f"{FOLDER}/{name}",
            params={"fieldManager": manager},
            content=json.dumps(obj),
            headers={"content-type": "application/apply-patch+yaml"},
        ).raise_for_status()

    def drift(name: str) -> None:
        apply(name, "kubectl", metadata={"name": name, "labels": {"owner": "someone"}})

    def adopt() -> str:
        apply("made-by-hand", "kubectl", data={"a": "1"})
        metadata = "metadata={'name': 'made-by-hand', 'namespace': 'default'}"
        options = "opts=pulumi.ResourceOptions(import_='default/made-by-hand')"
        return _program(f"k8s.core.v1.ConfigMap('one', {metadata}, data={{'a': '1'}}, {options})")

    return Example(
        head="import pulumi_kubernetes as k8s",
        create=_program(_config_map("1", "data")),
        update=_program(_config_map("1", "platform")),
        updated={"metadata.labels.owner": "update"},
        replace=_program(_config_map("2", "data").replace("'one', ", "'one', immutable=True, ")),
        replaced={"data.a": "update-replace", "immutable": "add-replace"},
        wrong=raw(
            "kubernetes:apps/v1:Deployment",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "one"},
                "spec": {
                    "replicas": "2",
                    "template": {"spec": {"containers": [{"name": "main", "imag": "x"}]}},
                    "selector": {},
                },
            },
        ),
        wrong_paths=("spec.replicas", "spec.template.spec.containers[0].imag"),
        unknown_type="kubernetes:core/v1:ConfigMop",
        missing_type="kubernetes:storage.k8s.io/v1:StorageClass",
        unknowns="""
            one = k8s.core.v1.ConfigMap("one", data={"a": "1"})
            two = k8s.core.v1.ConfigMap("two", data={"of": one.metadata.uid})
            pulumi.export("two", two.data["of"])
        """,
        secret="""
            word = pulumi.Output.secret("correct horse")
            one = k8s.core.v1.Secret("one", string_data={"word": word})
            pulumi.export("secret", one.string_data["word"])
        """,
        exists=lambda name: cluster.get(f"{FOLDER}/{name}").is_success,
        drift=drift,
        drifted="metadata.labels.owner",
        remove=lambda name: cluster.delete(f"{FOLDER}/{name}").raise_for_status() and None,
        adopt=adopt,
    )
