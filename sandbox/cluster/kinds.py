"""The kinds that the cluster serves, built in and by CustomResourceDefinition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.cluster.errors import ApiError


@dataclass(frozen=True)
class Kind:
    """One kind: how it is written, addressed and scoped."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


def _core() -> Iterable[Kind]:
    names = ("ConfigMap", "Secret", "Service", "ServiceAccount", "Pod", "PersistentVolumeClaim", "LimitRange")
    yield from (Kind("v1", name, f"{name.lower()}s") for name in names)
    yield Kind("v1", "Namespace", "namespaces", namespaced=False)
    yield Kind("v1", "ResourceQuota", "resourcequotas")


def _groups() -> Iterable[Kind]:
    yield from (
        Kind("apps/v1", name, f"{name.lower()}s") for name in ("Deployment", "ReplicaSet", "StatefulSet")
    )
    yield from (Kind("batch/v1", name, f"{name.lower()}s") for name in ("Job", "CronJob"))
    yield Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
    yield Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    yield Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
    yield Kind("networking.k8s.io/v1", "Ingress", "ingresses")
    yield Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
    yield Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
    yield Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
    yield Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False)
    yield Kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", namespaced=False)


class Kinds:
    """All kinds that are served, found by kind or by plural."""

    def __init__(self, custom: Iterable[Kind] = ()) -> None:
        self.all = [*_core(), *_groups(), *custom]
        self._by_kind = {(kind.api_version, kind.kind): kind for kind in self.all}
        self._by_plural = {(kind.api_version, kind.plural): kind for kind in self.all}

    def find(self, api_version: str, kind: str) -> Kind:
        """The kind.

        Raises:
            ApiError: it is not served; the message names the versions in which it is, or the kinds there are.
        """
        if found := self._by_kind.get((api_version, kind)):
            return found
        versions = [other.api_version for other in self.all if other.kind == kind]
        hint = f"it is served as {', '.join(versions)}" if versions else f"served are {self._names()}"
        message = f'no matches for kind "{kind}" in version "{api_version}"; {hint}'
        raise ApiError(404, "NotFound", message)

    def find_plural(self, api_version: str, plural: str) -> Kind:
        """The kind of a path.

        Raises:
            ApiError: it is not served.
        """
        if found := self._by_plural.get((api_version, plural)):
            return found
        raise ApiError(
            404, "NotFound", f'the server could not find the requested resource "{api_version}/{plural}"'
        )

    def _names(self) -> str:
        return ", ".join(sorted({kind.kind for kind in self.all}))
