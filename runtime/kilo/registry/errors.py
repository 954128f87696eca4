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


class Unreadable(CheckFailed):
    """A manifest, list or header that is malformed, too large, or of a type whose references are not known.

    The bytes may well be what their digest says; but what they name is not known, so a copy of them
    can't be called whole.
    """


class NotAttachment(CheckFailed):
    """What is listed as an attachment of an image is none: it runs, or it refers to something else."""


def unexpected(error: Exception) -> CheckFailed:
    """An error that nothing here is made for, as a finding about the one artifact that met it."""
    return CheckFailed(f"unexpected {type(error).__name__}; please report it with the log's trace")
