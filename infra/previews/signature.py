"""Whether the image that a preview runs is signed by whom it should be.

A pull request's image is signed by the workflow that pushed it, which says where it came from and no more:
that identity must be none of the stage's signers, or what a pull request built could be promoted.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.previews.request import Target
from kilo.errors import BadInput
from kilo.registry.client import Registries
from kilo.registry.errors import NotFound
from kilo.registry.graph import RepositoryView
from kilo.registry.reference import Reference
from kilo.registry.signatures import find_signer
from kilo.registry.signers import Signers

_PATIENCE_SECONDS = 20.0


class Unsigned(Exception):
    """No signature of the image counts; why."""


@dataclass(frozen=True)
class Origin:
    """Where the image of a preview comes from.

    Attributes:
        built_here: this command made it; nobody signed it in between.
        signers: who must have signed one that was given; the stage's own where nobody is named.
    """

    built_here: bool = True
    signers: Signers | None = None


def check_origin(image: str | None, signers: Signers) -> Origin:
    """The origin that a command line names.

    Raises:
        BadInput: signers without an image that they could have signed.
    """
    if signers and image is None:
        msg = "--signed-by, --certificate-identity: of an image that is there already; name it: --image"
        raise BadInput(msg)
    return Origin(built_here=image is None, signers=signers or None)


def signed_by(image: str, signers: Signers | None, target: Target) -> str | None:
    """Who signed the image: an identity of ``signers``, or else of the stage's; None where nobody is named.

    Raises:
        Unsigned: none of them did, or the stage takes for released what only a pull request's signer signed.
        KiloError: the registry can't be asked, or a signer is none.
    """
    stage = Signers.of_outputs(target.outputs().registries.signers)
    if not (signers or stage):
        return None
    reference = Reference.parse(image)
    repository = Registries(patience_seconds=_PATIENCE_SECONDS).repository(reference)
    found = repository.resolve(reference.digest or "")
    if found is None:
        msg = f"{reference}: not in its registry"
        raise NotFound(msg)
    view = RepositoryView(repository)
    graph = view.graph(*found)
    identity = find_signer(view, graph, signers or stage)
    if identity is None:
        msg = "no signature by a required signer over this digest"
        raise Unsigned(msg)
    if signers and (taken := find_signer(view, graph, stage)) is not None:
        msg = f"the stage takes {taken} for a release's signer (kilo:registry.signers); name workflows there"
        raise Unsigned(msg)
    return identity
