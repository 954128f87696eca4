"""Resource options that components share."""

from __future__ import annotations

import pulumi


def retain_options(parent: pulumi.Resource, protect: bool) -> pulumi.ResourceOptions:
    """Options for what can't be made again: keys, locked buckets, registries.

    With ``protect`` the engine refuses to delete or replace the resource, and what falls out of the
    program stays in the cloud. Without it, a throw-away stage leaves nothing behind.
    """
    return pulumi.ResourceOptions(parent=parent, protect=protect, retain_on_delete=protect)
