"""Field encryption beside what else there is: ``python -m benchmarks.fle``.

The limits are a bare AESGCM with a cached cipher and the same encoding (for v1), and bare KC-XAES-256-GCM
with the same commitment and encoding (for v2). Beside them: Tink's envelope AEAD, the AWS Encryption SDK
with its caching materials manager, and Asherah with its session cache, each with its data keys wrapped by
the same KMS. Every candidate produces text that can be stored, and the values are bound to their place
where it can bind them. What is decrypted are a thousand values that were encrypted one by one.

What limits v2 against Asherah at 64 bytes: Asherah's session is native code around one AES-GCM under a
cached key, and binds neither row nor column nor key. Of the 4.2 µs that v2 takes (least of many, one
core), AES-GCM are 0.9, the commitment 0.8, the nonce 0.6 (a system call), the row's part of what is bound
0.4, base64 0.4, joining 0.3, and the rest calls of the interpreter. A derived key for each value, as raw
KC-XAES has it, costs 3.0 more.
"""

from __future__ import annotations

import base64
import logging
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, repeat
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.fle_stage import cipher, kms_calls, stage
from benchmarks.rounds import Measured, measure, save, table
from kilo.contract import KeyReference
from kilo.fle import FieldCipher
from kilo.fle.formats import associated_data, header, row_data
from kilo.fle.xaes import KcXaes256Gcm

SIZES = (16, 64, 1024)
BATCH = 1000


def times(call: Callable[[], Any]) -> Callable[[int], int]:
    """A candidate that makes one call an operation."""

    def run(count: int) -> int:
        for _ in repeat(None, count):
            call()
        return count

    return run


def batched(call: Callable[[], Any]) -> Callable[[int], int]:
    """A candidate whose call does a batch of operations."""

    def run(count: int) -> int:
        batches = max(1, count // BATCH)
        for _ in repeat(None, batches):
            call()
        return batches * BATCH

    return run


def raw_gcm(plaintext: bytes) -> tuple[Callable[[], str], Callable[[], bytes]]:
    """AES-256-GCM with a cached cipher and v1's encoding, and nothing else."""
    gcm = AESGCM(os.urandom(32))

    def encrypt() -> str:
        nonce = os.urandom(12)
        sealed = gcm.encrypt(nonce, plaintext, None)
        return base64.b64encode(b"\x01" + nonce + sealed[-16:] + sealed[:-16]).decode()

    stored = cycle([encrypt() for _ in range(BATCH)])

    def decrypt() -> bytes:
        raw = base64.b64decode(next(stored), validate=True)
        return gcm.decrypt(raw[1:13], raw[29:] + raw[13:29], None)

    return encrypt, decrypt


def raw_xaes(plaintext: bytes) -> tuple[Callable[[], str], Callable[[], bytes]]:
    """KC-XAES-256-GCM with a cached key and v2's encoding, and nothing else."""
    key, head = KcXaes256Gcm(os.urandom(32)), header(1, 1)
    aad = associated_data(head, "acme", "customers", "email") + row_data(1)

    def encrypt() -> str:
        nonce = os.urandom(24)
        sealed, commitment = key.seal(nonce, plaintext, aad)
        return base64.b64encode(head + nonce + commitment + sealed[-16:] + sealed[:-16]).decode()

    stored = cycle([encrypt() for _ in range(BATCH)])

    def decrypt() -> bytes:
        raw = base64.b64decode(next(stored), validate=True)
        return key.open(raw[6:30], raw[78:] + raw[62:78], raw[30:62], aad)

    return encrypt, decrypt


def ours(
    fields: FieldCipher, tenant: str, plaintext: bytes
) -> tuple[Callable[[], str], Callable[[], bytes], Callable[[], Any]]:
    """FieldCipher: encrypt, decrypt, and a column of a thousand."""
    stored = cycle([fields.encrypt(tenant, "email", 1, plaintext) for _ in range(BATCH)])
    rows, values = list(range(BATCH)), [plaintext] * BATCH
    return (
        partial(fields.encrypt, tenant, "email", 1, plaintext),
        lambda: fields.decrypt_bytes(tenant, "email", 1, next(stored)),
        partial(fields.encrypt_column, tenant, "email", rows, values),
    )


def tink_envelope(key: KeyReference, plaintext: bytes) -> Callable[[], str]:
    """Tink's KMS envelope AEAD, as its manual has it: a data key and a KMS call a value."""
    from tink import aead  # noqa: PLC0415 - it may not be loadable here
    from tink.integration import awskms  # noqa: PLC0415 - it may not be loadable here

    aead.register()
    uri = f"aws-kms://{key.key}"
    remote = awskms.AwsKmsClient(uri, "").get_aead(uri)
    envelope = aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, remote)
    return lambda: base64.b64encode(envelope.encrypt(plaintext, b"acme/customers/email/1")).decode()


def tink_keyset(plaintext: bytes) -> Callable[[], str]:
    """Tink with a keyset in memory: no KMS at all, its primitive alone."""
    import tink  # noqa: PLC0415 - it may not be loadable here
    from tink import aead  # noqa: PLC0415 - it may not be loadable here

    aead.register()
    primitive = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    return lambda: base64.b64encode(primitive.encrypt(plaintext, b"acme/customers/email/1")).decode()


def aws_sdk(key: KeyReference, plaintext: bytes) -> Callable[[], str]:
    """The AWS Encryption SDK with a caching materials manager, with commitment and without signing."""
    import aws_encryption_sdk  # noqa: PLC0415 - it may not be loadable here

    sdk: Any = aws_encryption_sdk  # its classes are made by attrs in a way that type checkers can't see

    client = sdk.EncryptionSDKClient(commitment_policy=sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    manager = sdk.CachingCryptoMaterialsManager(
        master_key_provider=sdk.StrictAwsKmsMasterKeyProvider(key_ids=[key.key]),
        cache=sdk.LocalCryptoMaterialsCache(capacity=100),
        max_age=3600.0,
        max_messages_encrypted=1 << 30,
    )
    algorithm = sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY

    def encrypt() -> str:
        sealed, _ = client.encrypt(
            source=plaintext,
            materials_manager=manager,
            encryption_context={"tenant": "acme", "field": "email"},
            algorithm=algorithm,
        )
        return base64.b64encode(sealed).decode()

    return encrypt


def asherah_session(plaintext: bytes) -> Callable[[], str]:
    """Asherah with its session cache and a static master key, which spares it every KMS call."""
    import asherah  # noqa: PLC0415 - it may not be loadable here

    if not asherah.get_setup_status():
        asherah.setup(
            {
                "ServiceName": "kilo",
                "ProductID": "benchmark",
                "KMS": "static",
                "StaticMasterKeyHex": os.urandom(32).hex(),
                "Metastore": "memory",
                "EnableSessionCaching": True,
            }
        )
    return lambda: asherah.encrypt_bytes("acme", plaintext)


def try_to(make: Callable[[], Callable[[], str]], name: str, candidates: dict[str, Callable[[], str]]) -> str:
    """Add a candidate that can be loaded here; say why when it can't."""
    try:
        call = make()
        call()
    except Exception as error:
        return f"{name}: not measured ({type(error).__name__}: {str(error)[:120]})"
    candidates[name] = call
    return ""


def main() -> None:
    """Measure, print and save."""
    logging.disable(logging.WARNING)
    text: list[str] = []
    results: dict[str, Any] = {}
    with stage() as (database, keys):
        fields = cipher(database, keys)
        fields.keyring.create("legacy", "field-data", "active", bytearray(os.urandom(32)))
        for size in SIZES:
            plaintext = os.urandom(size)
            gcm, xaes = raw_gcm(plaintext), raw_xaes(plaintext)
            v1, v2 = ours(fields, "legacy", plaintext), ours(fields, "acme", plaintext)
            others: dict[str, Callable[[], str]] = {}
            notes = [
                try_to(lambda p=plaintext: tink_envelope(keys["acme"], p), "Tink envelope", others),
                try_to(lambda p=plaintext: tink_keyset(p), "Tink keyset, no KMS", others),
                try_to(lambda p=plaintext: aws_sdk(keys["acme"], p), "AWS Encryption SDK, caching", others),
                try_to(lambda p=plaintext: asherah_session(p), "Asherah", others),
            ]
            singles = {"raw AESGCM": gcm[0], "v1": v1[0], "raw KC-XAES": xaes[0], "v2": v2[0], **others}
            lengths = {name: len(call()) for name, call in {"v1": v1[0], "v2": v2[0], **others}.items()}
            encrypts = measure(
                {
                    "raw AESGCM": times(gcm[0]),
                    "v1": times(v1[0]),
                    "v1 column": batched(v1[2]),
                    "raw KC-XAES": times(xaes[0]),
                    "v2": times(v2[0]),
                    "v2 column": batched(v2[2]),
                    **{name: times(call) for name, call in others.items()},
                }
            )
            decrypts = measure(
                {
                    "raw AESGCM": times(gcm[1]),
                    "v1": times(v1[1]),
                    "raw KC-XAES": times(xaes[1]),
                    "v2": times(v2[1]),
                }
            )
            text.append(table(f"Encrypt {size} bytes", list(encrypts.values()), "raw AESGCM"))
            text.append(table(f"Decrypt {size} bytes", list(decrypts.values()), "raw AESGCM"))
            text += [f"- {note}" for note in notes if note]
            text.append(f"Stored characters for {size} bytes: {lengths}\n")
            results[str(size)] = {
                "encrypt": {name: each.median for name, each in encrypts.items()},
                "decrypt": {name: each.median for name, each in decrypts.items()},
                "stored_characters": lengths,
            }
            if size == 64:
                costs = {name: cost(call) for name, call in singles.items()}
                text += [costs_table(costs, lengths), judged(encrypts)]
                results["costs"] = costs
                results["ratios"] = {name: number for name, number in ratios(encrypts) if number}
    save("fle", results, "\n".join(text))


def cost(call: Callable[[], Any], seconds: float = 2.0) -> dict[str, float]:
    """Latency of single calls in microseconds, and KMS calls a million operations.

    One that asks KMS once for all its operations shows what that one call is of the operations counted.
    """
    taken: list[float] = []
    before, began = kms_calls(), time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        call()
        taken.append((time.perf_counter() - now) * 1e6)
    cuts = statistics.quantiles(taken, n=100)
    calls = (kms_calls() - before) / len(taken) * 1e6
    return {"p50_us": cuts[49], "p99_us": cuts[98], "operations": len(taken), "kms_calls_a_million": calls}


def costs_table(costs: dict[str, dict[str, float]], lengths: dict[str, int]) -> str:
    """A Markdown table of latency, KMS calls and characters beyond the plain value's own."""
    lines = [
        "### One call of 64 bytes",
        "",
        "| what | p50 µs | p99 µs | KMS calls a million | more characters |",
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, each in costs.items():
        more = f"{lengths[name] - 64}" if name in lengths else ""
        lines.append(
            f"| {name} | {each['p50_us']:.2f} | {each['p99_us']:.2f}"
            f" | {each['kms_calls_a_million']:,.0f} | {more} |"
        )
    return "\n".join([*lines, ""])


def judged(encrypts: dict[str, Measured]) -> str:
    """The ratios that are promised, at 64 bytes."""

    lines = [
        f"- {name}: {number:.2f}" if number else f"- {name}: not measured"
        for name, number in ratios(encrypts)
    ]
    return "\n".join(["### Promised at 64 bytes", "", *lines, ""])


def ratios(encrypts: dict[str, Measured]) -> list[tuple[str, float | None]]:
    """Each ratio that is promised, or worth knowing; ``None`` when its peer could not be measured."""

    def ratio(one: str, other: str) -> float | None:
        return encrypts[one].median / encrypts[other].median if other in encrypts else None

    return [
        ("v1 against raw AESGCM, at least 0.80", ratio("v1", "raw AESGCM")),
        ("v2 against raw KC-XAES, at least 0.80", ratio("v2", "raw KC-XAES")),
        ("v2 against Tink's envelope, at least 10", ratio("v2", "Tink envelope")),
        ("v2 against the AWS SDK, at least 10", ratio("v2", "AWS Encryption SDK, caching")),
        ("v2 against Asherah", ratio("v2", "Asherah")),
        ("v1 column against v1, at least 1.5", ratio("v1 column", "v1")),
        ("v2 column against v2, at least 1.5", ratio("v2 column", "v2")),
    ]


if __name__ == "__main__":
    main()
