"""The cluster put together: store, API, controllers and node in one event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sandbox.cluster.addresses import Addresses
from sandbox.cluster.controllers.controller import Manager
from sandbox.cluster.controllers.cronjob import CronJobController
from sandbox.cluster.controllers.deletion import deletion_controllers
from sandbox.cluster.controllers.deployment import DeploymentController
from sandbox.cluster.controllers.job import JobController
from sandbox.cluster.controllers.replicaset import ReplicaSetController
from sandbox.cluster.controllers.service import ServiceController
from sandbox.cluster.controllers.statefulset import ClaimController, StatefulSetController
from sandbox.cluster.node.node import Node, NodeSettings
from sandbox.cluster.operator import PrometheusOperator
from sandbox.cluster.resources import Resources
from sandbox.cluster.schemas import Schemas
from sandbox.cluster.store import Store


class Cluster:
    """A cluster whose state lies under ``settings.home``.

    Args:
        settings: of its node.
        definitions: folder of CustomResourceDefinitions.
    """

    def __init__(self, settings: NodeSettings, definitions: Path | None = None) -> None:
        self.store = Store(settings.home / "objects")
        self.addresses = Addresses(settings.home / "addresses.json")
        self.resources = Resources(self.store, Schemas(definitions), self.addresses)
        self.services = ServiceController(self.resources, self.addresses)
        self.node = Node(self.store, self.addresses, settings)
        controllers = [
            DeploymentController(self.resources),
            ReplicaSetController(self.resources),
            StatefulSetController(self.resources),
            ClaimController(self.resources),
            JobController(self.resources),
            CronJobController(self.resources),
            self.services,
            *deletion_controllers(self.resources),
        ]
        self._manager = Manager(controllers, self.resources)
        self._operator = PrometheusOperator(self.resources)

    async def run(self) -> None:
        """Run until cancelled."""
        await asyncio.gather(self.node.run(), self._manager.run(), self._operator.run())

    async def stop(self) -> None:
        """Stop every pod's processes, the pods staying for the next start."""
        await self.node.stop()
        self.services.close()
        self.addresses.close()
