"""A service of forty lines: an order and its event, in one transaction (``pip install kilo``).

DATABASE_URL=postgresql://… python docs/examples/service.py 8080
curl -d '{"total": 12}' -H 'Idempotency-Key: 7' http://127.0.0.1:8080/acme/orders/42
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg

from kilo.environment import database_url
from kilo.errors import BadInput
from kilo.outbox import Event, enqueue


class Orders(BaseHTTPRequestHandler):
    """``POST /TENANT/orders/ID`` with the order's JSON."""

    def do_POST(self) -> None:
        """Keep the order and announce it; the same key again announces nothing more."""
        try:
            tenant, _, order = self.path.strip("/").split("/")
            payload = self.rfile.read(int(self.headers["Content-Length"])).decode()
            key = self.headers["Idempotency-Key"]
            event = Event(tenant, "order", order, "order.placed", payload, fingerprint=f"{tenant}/{key}")
            with psycopg.connect(database_url()) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS orders (tenant text, id text, body jsonb)")
                written = enqueue(connection, event)
                if not written.duplicate:
                    connection.execute("INSERT INTO orders VALUES (%s, %s, %s)", (tenant, order, payload))
        except (BadInput, ValueError, TypeError) as error:
            self._answer(400, str(error))
        else:
            self._answer(200 if written.duplicate else 201, written.fingerprint)

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(text).encode())


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Orders)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
