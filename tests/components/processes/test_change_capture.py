"""Change capture's pod: who says whether the connector is alive."""

from __future__ import annotations

from components.pods.access import To
from components.processes.change_capture import PORT, ChangeCapture, ChangeCaptureArgs
from kilo.cdc.properties import CONNECTOR_PATH
from tests.components.recorder import record
from tests.components.support import runtime_context, template


def test_the_connector_is_alive_as_long_as_its_sidecar_says_so() -> None:
    capture = record(
        lambda: ChangeCapture(
            "debezium",
            ChangeCaptureArgs(
                context=runtime_context(),
                image="quay.io/debezium/server:3.6.0.Final",
                properties="",
                bus=[To(port=4222, workload="nats")],
            ),
        )
    )
    spec = template(capture, "kubernetes:apps/v1:StatefulSet")["spec"]
    (watch,), (debezium,) = spec["initContainers"], spec["containers"]
    # Where it was is the slot's to know, so no disk ties it to a zone.
    assert not capture.of("kubernetes:core/v1:PersistentVolumeClaim")
    assert all("emptyDir" in each for each in spec["volumes"] if each["name"].startswith("scratch"))
    asked = debezium["livenessProbe"]["httpGet"]
    assert asked == {"path": CONNECTOR_PATH, "port": watch["ports"][0]["containerPort"]}
    # Until it has started once, nobody else's word counts.
    own = debezium["startupProbe"]["httpGet"]
    assert own["port"] == debezium["ports"][0]["name"]
    assert f"http://$(POD_IP):{PORT}{own['path']}" in watch["args"]
    assert debezium["ports"][0]["containerPort"] == PORT
