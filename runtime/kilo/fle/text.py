"""Text to bytes and back. A codec's error holds the whole value, so ours is raised outside of its handler."""

from __future__ import annotations

from kilo.fle.errors import NotText


def bytes_of(tenant: str, field: str, plaintext: str | bytes) -> bytes:
    """Encode text as UTF-8; raises :class:`NotText` for lone surrogates, ``TypeError`` for other types."""
    kind: type = type(plaintext)
    # A whole number is no bytes: bytes(5) are five zeros.
    if not issubclass(kind, (str, bytes, bytearray, memoryview)):
        msg = f"{tenant}/{field}: text or bytes are encrypted, not {kind.__name__}"
        raise TypeError(msg)
    try:
        return plaintext.encode() if isinstance(plaintext, str) else bytes(plaintext)
    except UnicodeEncodeError:
        pass
    del plaintext
    raise NotText(tenant, field)


def text_of(tenant: str, field: str, data: bytes) -> str:
    """Decode UTF-8; raises :class:`NotText`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    del data
    raise NotText(tenant, field)
