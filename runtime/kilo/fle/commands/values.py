"""``kilo fle encrypt | decrypt | token | inspect``: single values.

A value comes from standard input and is taken byte for byte (a newline that a shell adds is part of it:
use ``printf``), never from an argument, which other processes can see and shells remember.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kilo.errors import BadInput
from kilo.fle import formats
from kilo.fle.commands.common import (
    AsJson,
    OutputsFile,
    cipher,
    read_blob,
    read_key_file,
    read_value,
    show,
    stage,
    write_bytes,
)
from kilo.fle.deterministic import BlindIndex, token_v1
from kilo.fle.errors import NotAuthentic, UnknownVersion
from kilo.fle.normalisation import Normalisation, normalise

Format = Annotated[
    Literal["v1", "v2"], typer.Option("--format", help="v1: the given key alone. v2: the stage's keys.")
]
KeyFile = Annotated[Path | None, typer.Option(help="v1: a file of 32 raw bytes.")]
Tenant = Annotated[str, typer.Option(help="Whose value it is (v2).")]
Table = Annotated[str, typer.Option(help="The table, or aggregate, that the field belongs to (v2).")]
Field = Annotated[str, typer.Option(help="The field (v2).")]
Row = Annotated[str, typer.Option(help="The row's identity (v2).")]
Pointer = Annotated[
    str | None,
    typer.Option(
        help="v2, for a value in a JSON document, such as an event's payload: the JSON pointer of the object"
        " that holds it, empty for the document itself."
    ),
]


def encrypt(  # noqa: PLR0917 - Typer passes options by name
    format_version: Format = "v2",
    key_file: KeyFile = None,
    tenant: Tenant = "",
    table: Table = "events",
    field: Field = "",
    row: Row = "",
    pointer: Pointer = None,
    outputs: OutputsFile = None,
) -> None:
    """Encrypt standard input; prints the encrypted value.

    \b
    printf %s ana@example.com | kilo fle encrypt --tenant acme --field email --row 42
    printf %s ana@example.com | kilo fle encrypt --format v1 --key-file key.bin
    """
    if format_version == "v1":
        typer.echo(encrypt_v1(_v1_key(key_file), read_value()))
        return
    _need(tenant=tenant, field=field, row=row)
    typer.echo(cipher(stage(outputs), table).encrypt(tenant, field, _row(row, pointer), read_value()))


def decrypt(  # noqa: PLR0917 - Typer passes options by name
    format_version: Format = "v2",
    key_file: KeyFile = None,
    tenant: Tenant = "",
    table: Table = "events",
    field: Field = "",
    row: Row = "",
    pointer: Pointer = None,
    outputs: OutputsFile = None,
) -> None:
    """Decrypt the encrypted value on standard input; prints the value byte for byte, without a newline.

    \b
    kilo fle decrypt --tenant acme --field email --row 42 < value.txt
    kilo fle decrypt --tenant acme --field email --row acme/order-1 --pointer /customer < value.txt
    kilo fle decrypt --format v1 --key-file key.bin < value.txt
    """
    if format_version == "v1":
        write_bytes(decrypt_v1(_v1_key(key_file), read_blob()))
        return
    _need(tenant=tenant, field=field, row=row)
    write_bytes(cipher(stage(outputs), table).decrypt_bytes(tenant, field, _row(row, pointer), read_blob()))


def token(  # noqa: PLR0917 - Typer passes options by name
    format_version: Format = "v2",
    key_file: KeyFile = None,
    tenant: Tenant = "",
    table: Table = "events",
    field: Field = "",
    kind: Annotated[
        Literal["email", "phone", "text"], typer.Option(help="How it is normalised (v2).")
    ] = "text",
    bits: Annotated[
        int, typer.Option(min=8, max=256, help="Length; fewer bits leak less, match more.")
    ] = 256,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="Print the normalised value in place of its tokens (v2).")
    ] = False,
    outputs: OutputsFile = None,
) -> None:
    """Print the index tokens of the value on standard input: those to search for, one a line.

    The first is the one to store. Of --format v1 there is one.

    \b
    printf %s ana@example.com | kilo fle token --tenant acme --field email --kind email
    printf %s '+49 (0) 209 22334455' | kilo fle token --kind phone --normalised
    printf %s ana@example.com | kilo fle token --format v1 --key-file key.bin
    """
    key = _v1_key(key_file) if format_version == "v1" else b""
    try:
        value = read_value().decode()
    except UnicodeDecodeError as error:
        msg = f"standard input: not UTF-8 text (byte {error.start}); a token is made of text"
        raise BadInput(msg) from None
    if format_version == "v1":
        typer.echo(token_v1(key, value))
        return
    chosen: Normalisation = kind
    if normalised:
        typer.echo(normalise(chosen, value))
        return
    _need(tenant=tenant, field=field)
    index = BlindIndex(cipher(stage(outputs), table).keyring, table, field, chosen, bits)
    for each in index.tokens(tenant, value):
        typer.echo(each)


def inspect(as_json: AsJson = False) -> None:
    """Say what the encrypted value on standard input tells of itself: version, suite, key id, lengths.

    \b
    kilo fle inspect --json < value.txt
    """
    show(asdict(formats.inspect(read_blob())), as_json=as_json)


def encrypt_v1(key: bytes, value: bytes) -> str:
    """The sprint's ``encryptField``."""
    nonce = os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, value, None)
    return formats.to_text(b"\x01" + nonce + sealed[-16:] + sealed[:-16])


def decrypt_v1(key: bytes, text: str) -> bytes:
    """The sprint's ``decryptField``."""
    raw = formats.to_bytes(text)
    if formats.classify(raw)[0] != formats.V1:
        raise UnknownVersion(detail="not a v1 value; leave --format out to use the stage's keys")
    try:
        return AESGCM(key).decrypt(raw[1:13], raw[29:] + raw[13:29], None)
    except InvalidTag:
        pass
    raise NotAuthentic(detail="or encrypted under another key than --key-file")


def _v1_key(path: Path | None) -> bytes:
    if path is None:
        msg = "--key-file: format v1 needs the file with its 32-byte key"
        raise BadInput(msg)
    return read_key_file(path)


def _row(row: str, pointer: str | None) -> formats.RowId:
    return row if pointer is None else formats.DocumentRow(row, pointer)


def _need(**options: str) -> None:
    for name, value in options.items():
        if not value:
            msg = f"--{name}: format v2 binds a value to its place; name it"
            raise BadInput(msg)
