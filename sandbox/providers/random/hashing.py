"""bcrypt, by the operating system's libcrypt: Python's own way to it is gone from 3.13 on."""

from __future__ import annotations

import ctypes
import ctypes.util
import secrets
import string
import threading

from kilo.errors import Unreachable

_COST = 10
"""What the official provider has, and Go's library when nothing else is said."""
_MOST_BYTES = 72
"""What bcrypt looks at; Go's library refuses more."""
_LOCK = threading.Lock()
"""crypt() answers in a place that all threads share."""
_ALPHABET = "./" + string.ascii_uppercase + string.ascii_lowercase + string.digits


def bcrypt(password: str, cost: int = _COST) -> str:
    """The hash of ``password``, with a salt of its own.

    Raises:
        Unreachable: this machine has no libcrypt that knows bcrypt.
    """
    found = ctypes.util.find_library("crypt")
    if found is None:
        msg = "libcrypt: not on this machine; Debian's is in the package libcrypt1"
        raise Unreachable(msg)
    crypt = ctypes.CDLL(found).crypt
    crypt.restype = ctypes.c_char_p
    # The last of 22 characters carries two bits alone.
    salt = "".join(secrets.choice(_ALPHABET) for _ in range(21)) + secrets.choice(".Oeu")
    setting = f"$2b${cost:02d}${salt}"
    with _LOCK:
        answer: bytes | None = crypt(password.encode()[:_MOST_BYTES], setting.encode())
    if answer is None or not answer.startswith(setting[:-1].encode()):
        msg = f"{found}: does not know bcrypt; libxcrypt does"
        raise Unreachable(msg)
    return answer.decode()
