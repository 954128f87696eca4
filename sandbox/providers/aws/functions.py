"""The ``aws`` package's functions: who and where we are, secrets, and policy documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sandbox.providers.aws.clients import SESSION
from sandbox.providers.base import Function
from sandbox.providers.values import Properties, Secret


def caller_identity(arguments: Properties) -> Properties:
    """``aws.get_caller_identity``."""
    del arguments
    found = SESSION.client("sts").get_caller_identity()
    account = SESSION.stood_in_for
    return {
        "accountId": account,
        "arn": found["Arn"].replace(found["Account"], account),
        "id": account,
        "userId": found["UserId"],
    }


def region(arguments: Properties) -> Properties:
    """``aws.get_region``."""
    name = arguments.get("region") or SESSION.region
    return {
        "name": name,
        "id": name,
        "region": name,
        "endpoint": f"ec2.{name}.amazonaws.com",
        "description": name,
    }


def partition(arguments: Properties) -> Properties:
    """``aws.get_partition``."""
    del arguments
    return {
        "partition": "aws",
        "dnsSuffix": "amazonaws.com",
        "id": "aws",
        "reverseDnsPrefix": "com.amazonaws",
    }


def secret_version(arguments: Properties) -> Properties:
    """``aws.secretsmanager.get_secret_version``."""
    client = SESSION.client("secretsmanager", arguments.get("region"))
    chosen = {"VersionId": arguments.get("versionId"), "VersionStage": arguments.get("versionStage")}
    found = client.get_secret_value(SecretId=arguments["secretId"], **{k: v for k, v in chosen.items() if v})
    return {
        "arn": found["ARN"],
        "createdDate": found["CreatedDate"].isoformat(),
        "id": f"{arguments['secretId']}|{arguments.get('versionStage') or 'AWSCURRENT'}",
        "region": client.meta.region_name,
        "secretId": arguments["secretId"],
        "secretString": Secret(found.get("SecretString", "")),
        "secretBinary": Secret(""),
        "versionId": found["VersionId"],
        "versionStage": arguments.get("versionStage") or "AWSCURRENT",
        "versionStages": found["VersionStages"],
    }


def policy_document(arguments: Properties) -> Properties:
    """``aws.iam.get_policy_document``: pure, in the layout that the official provider prints."""
    statements = [_statement(statement) for statement in arguments.get("statements") or ()]
    sources = [json.loads(text) for text in arguments.get("sourcePolicyDocuments") or ()]
    overrides = [json.loads(text) for text in arguments.get("overridePolicyDocuments") or ()]
    merged = [s for document in sources for s in _listed(document.get("Statement"))] + statements
    for document in overrides:
        for statement in _listed(document.get("Statement")):
            sid = statement.get("Sid")
            places = [i for i, s in enumerate(merged) if sid and s.get("Sid") == sid]
            if places:
                merged[places[0]] = statement
            else:
                merged.append(statement)
    document: dict[str, Any] = {"Version": arguments.get("version") or "2012-10-17"}
    if arguments.get("policyId"):
        document["Id"] = arguments["policyId"]
    document["Statement"] = merged
    text = json.dumps(document, indent=2)
    digest = str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
    minified = json.dumps(document, separators=(",", ":"))
    return {**arguments, "id": digest, "json": text, "minifiedJson": minified}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _statement(given: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if given.get("sid"):
        made["Sid"] = given["sid"]
    made["Effect"] = given.get("effect") or "Allow"
    for name, key in (
        ("actions", "Action"),
        ("notActions", "NotAction"),
        ("resources", "Resource"),
        ("notResources", "NotResource"),
    ):
        if given.get(name):
            made[key] = _compact(given[name])
    for name, key in (("principals", "Principal"), ("notPrincipals", "NotPrincipal")):
        if given.get(name):
            made[key] = _principals(given[name])
    if given.get("conditions"):
        tests: dict[str, dict[str, Any]] = {}
        for condition in given["conditions"]:
            tests.setdefault(condition["test"], {})[condition["variable"]] = _compact(condition["values"])
        made["Condition"] = tests
    return made


def _principals(given: list[Mapping[str, Any]]) -> Any:
    if any(p["type"] == "*" and "*" in p["identifiers"] for p in given):
        return "*"
    merged: dict[str, list[str]] = {}
    for principal in given:
        merged.setdefault(principal["type"], []).extend(principal["identifiers"])
    return {kind: _compact(identifiers) for kind, identifiers in merged.items()}


def _compact(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else sorted(values, reverse=True)


FUNCTIONS: dict[str, Function] = {
    "aws:index/getCallerIdentity:getCallerIdentity": caller_identity,
    "aws:index/getRegion:getRegion": region,
    "aws:index/getPartition:getPartition": partition,
    "aws:secretsmanager/getSecretVersion:getSecretVersion": secret_version,
    "aws:iam/getPolicyDocument:getPolicyDocument": policy_document,
}
