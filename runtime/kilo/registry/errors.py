"""What can go wrong with a registry, told apart by what to do about it."""

from __future__ import annotations

from kilo.errors import BadInput, CheckFailed, Unreachable


class RegistryDown(Unreachable):
    """The registry did not answer, or kept answering 429 or 5xx until patience ran out."""


class AccessDenied(Unreachable):
    """The registry answered 401 or 403 to the credentials that were found."""


class NotFound(BadInput):
    """A repository, manifest or blob that was asked for by name does not exist."""


class Rejected(CheckFailed):
    """The registry refused a request for good, such as moving an immutable tag."""


class Untrustworthy(CheckFailed):
    """The registry sent bytes that are not what their digest or its own headers say."""
