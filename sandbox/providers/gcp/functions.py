"""The ``gcp`` package's functions: which project we are in."""

from __future__ import annotations

from sandbox.providers.base import Function
from sandbox.providers.gcp.project import PROJECT
from sandbox.providers.values import Properties


def project(arguments: Properties) -> Properties:
    """``gcp.organizations.get_project``."""
    name = arguments.get("projectId") or PROJECT.name
    return {"projectId": name, "id": f"projects/{name}", "name": name, "number": PROJECT.number}


def client_config(arguments: Properties) -> Properties:
    """``gcp.organizations.get_client_config``, without a token: there is no one to show it to."""
    del arguments
    name = PROJECT.name
    return {"project": name, "region": PROJECT.region, "zone": "", "id": name, "accessToken": ""}


def storage_account(arguments: Properties) -> Properties:
    """``gcp.storage.get_project_service_account``."""
    name = arguments.get("project") or PROJECT.name
    email = f"service-{PROJECT.number}@gs-project-accounts.iam.gserviceaccount.com"
    return {"emailAddress": email, "id": email, "member": f"serviceAccount:{email}", "project": name}


FUNCTIONS: dict[str, Function] = {
    "gcp:organizations/getProject:getProject": project,
    "gcp:organizations/getClientConfig:getClientConfig": client_config,
    "gcp:storage/getProjectServiceAccount:getProjectServiceAccount": storage_account,
}
