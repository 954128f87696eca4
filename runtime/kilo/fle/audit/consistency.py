"""Consistency proofs (RFC 9162, section 2.1.4): from two roots, that a log begins with a shorter one.

Whoever keeps two checkpoints and the proof between them, a witness for instance, needs no entry to see that
nothing before was altered or cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from kilo.fle.audit.log import merkle_root


def consistency_proof(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """The proof that the tree over ``leaves`` extends the one over the first ``size`` (1 or more) of them."""
    return _subproof(leaves, size, complete=True)


def _subproof(leaves: Sequence[bytes], size: int, *, complete: bool) -> list[bytes]:
    if size == len(leaves):
        return [] if complete else [merkle_root(leaves)]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if size <= split:
        return [*_subproof(leaves[:split], size, complete=complete), merkle_root(leaves[split:])]
    return [*_subproof(leaves[split:], size - split, complete=False), merkle_root(leaves[:split])]


def is_consistent(proof: Sequence[bytes], first: tuple[int, bytes], second: tuple[int, bytes]) -> bool:
    """Whether ``proof`` shows that the tree of ``second`` (size and root) extends that of ``first``."""
    (size, root), (larger, new_root) = first, second
    if not 0 < size <= larger:
        return False
    if size == larger:
        return not proof and root == new_root
    path = list(proof)
    if size & (size - 1) == 0:
        path.insert(0, root)
    if not path:
        return False
    position, last = size - 1, larger - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = _parent(node, old), _parent(node, new)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new = _parent(new, node)
        position, last = position >> 1, last >> 1
    return last == 0 and old == root and new == new_root


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
