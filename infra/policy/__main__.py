"""Hands the rules to the engine: ``pulumi preview --policy-pack infra/policy``.

A broken rule stops the deployment. A stage that only wants to hear of it, by ``kilo:policy_enforcement:
advisory``, adds ``--policy-pack-config infra/policy/advisory.json``, and one that lets go of what it holds,
by ``unprotected``, the file of that name. The engine tells a pack nothing of the stage's own configuration
before it has asked for the levels.
"""

from __future__ import annotations

import gc

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from infra.policy import access, keys, protection, registries, storage, workloads
from infra.policy.rule import Resource, Rule, StackRule

RULES: tuple[Rule, ...] = (
    *storage.RULES,
    *keys.RULES,
    *access.RULES,
    *registries.RULES,
    *workloads.RULES,
    *protection.RULES,
)
STACK_RULES: tuple[StackRule, ...] = storage.STACK_RULES


def _resource_policy(rule: Rule) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type in rule.types:
            resource = Resource(args.resource_type, args.name, args.props, args.opts.protect, args.urn)
            for message in rule.check(resource):
                report(f"{args.name}: {message}", None)

    return ResourceValidationPolicy(rule.name, rule.description, validate)


def _stack_policy(rule: StackRule) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for urn, message in rule.check([_resource(resource) for resource in args.resources]):
            report(f"{urn.rpartition('::')[2]}: {message}", urn)

    return StackValidationPolicy(rule.name, rule.description, validate)


def _resource(resource: PolicyResource) -> Resource:
    dependencies = {
        name: [dependency.urn for dependency in found]
        for name, found in resource.property_dependencies.items()
    }
    return Resource(
        resource.resource_type,
        resource.name,
        resource.props,
        resource.opts.protect,
        resource.urn,
        dependencies,
    )


def main() -> None:
    """Serve the pack until the engine is done with it."""
    gc.disable()  # As in the program: it lives for one preview.
    PolicyPack(
        "kilo",
        enforcement_level=EnforcementLevel.MANDATORY,
        policies=[*map(_resource_policy, RULES), *map(_stack_policy, STACK_RULES)],
    )


if __name__ == "__main__":
    main()
