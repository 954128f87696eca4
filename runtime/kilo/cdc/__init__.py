"""Change data capture with Debezium: its configuration, the publication and the slot.

Debezium itself is deployed, not wrapped: what is here renders its settings and declares what it reads.
"""

from kilo.cdc.properties import ConnectorSettings, render_connector, render_properties
from kilo.cdc.publication import apply_capture

__all__ = ["ConnectorSettings", "apply_capture", "render_connector", "render_properties"]
