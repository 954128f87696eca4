"""Who is told of alerts in a stage on one machine: it writes each notification into its log.

``python -m sandbox.servers.alert_receiver ADDRESS PORT`` takes what Alertmanager's webhooks send
(https://prometheus.io/docs/alerting/latest/configuration/#webhook_config) and prints a line of JSON an alert.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override

_LARGEST_BYTES = 4 << 20


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Print the notification."""
        try:
            size = int(self.headers.get("content-length", "0"))
            alerts = json.loads(self.rfile.read(min(size, _LARGEST_BYTES)))["alerts"]
            lines = [json.dumps(_told(alert)) for alert in alerts]
        except (ValueError, KeyError, TypeError, AttributeError):
            self.send_error(400)
            return
        for line in lines:
            print(line, flush=True)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Only notifications are of interest."""


def _told(alert: dict[str, dict[str, str]]) -> dict[str, object]:
    labels, annotations = alert["labels"], alert.get("annotations", {})
    return {
        "status": alert["status"],
        "alert": labels["alertname"],
        "severity": labels.get("severity"),
        "tenant": labels.get("tenant"),
        "since": alert["startsAt"],
        "summary": annotations.get("summary"),
        "runbook": annotations.get("runbook_url"),
    }


def main() -> None:
    """Serve until told to stop."""
    address, port = sys.argv[1:]
    ThreadingHTTPServer((address, int(port)), _Receiver).serve_forever()


if __name__ == "__main__":
    main()
