"""FieldCipher over a real key table and KMS protocol: round trips, refusals, scope, batches."""

from __future__ import annotations

import base64
import copy
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from kilo.fle import AsyncFieldCipher, FieldCipher, FieldError, errors, formats
from kilo.fle.deterministic import BlindIndex
from kilo.fle.normalisation import normalise

from .conftest import Stage

ROW = UUID("7f3c2f0e-6d5a-4c0a-9b87-1d2e3f405162")


def flip(text: str, at: int, bit: int) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[at] ^= 1 << bit
    return base64.b64encode(raw).decode()


def test_values_come_back_as_they_went_in(stage: Stage) -> None:
    cipher = stage.cipher()
    for row in (1, "1b", ROW):
        for value in ("", "ana@example.com", "太郎", "x" * 100_000):
            assert cipher.decrypt("gold", "email", row, cipher.encrypt("gold", "email", row, value)) == value
    assert (
        cipher.decrypt_bytes("gold", "email", 1, cipher.encrypt("gold", "email", 1, b"\x00\xff"))
        == b"\x00\xff"
    )


def test_another_process_reads_what_one_wrote(stage: Stage) -> None:
    value = stage.cipher().encrypt("gold", "email", 1, "ana")
    assert stage.cipher().decrypt("gold", "email", 1, value) == "ana"


def test_moved_values_are_refused(stage: Stage) -> None:
    cipher = stage.cipher()
    value = cipher.encrypt("gold", "email", 1, "ana")
    other = stage.cipher().for_table("orders")
    for tenant, field, row, where in [
        ("gold", "email", 2, cipher),
        ("gold", "phone", 1, cipher),
        ("gold", "email", 1, other),
    ]:
        with pytest.raises(errors.NotAuthentic):
            where.decrypt(tenant, field, row, value)
    with pytest.raises(errors.WrongTenant):
        cipher.decrypt("second", "email", 1, value)


def test_every_flipped_bit_and_every_cut_is_refused(stage: Stage) -> None:
    cipher = stage.cipher()
    value = cipher.encrypt("gold", "email", 1, "ana@example.com")
    raw = base64.b64decode(value)
    for at in range(len(raw)):
        with pytest.raises(FieldError):
            cipher.decrypt("gold", "email", 1, flip(value, at, at % 8))
    for end in range(len(value)):
        with pytest.raises(FieldError):
            cipher.decrypt("gold", "email", 1, value[:end])


def test_every_changed_character_is_refused(stage: Stage) -> None:
    cipher = stage.cipher()
    for text in ("a", "ab", "abc"):
        value = cipher.encrypt("gold", "email", 1, text)
        for at in range(len(value)):
            for other in "AQgw=/+z":
                if other != value[at]:
                    with pytest.raises(FieldError):
                        cipher.decrypt("gold", "email", 1, value[:at] + other + value[at + 1 :])


def made(*parts: bytes) -> str:
    return base64.b64encode(b"".join(parts)).decode()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("ana@example.com", errors.PlaintextFound),
        ("A!" + "x" * 80, errors.PlaintextFound),
        ("AgEAAAAB!!!!", errors.NotBase64),
        ("", errors.TooShort),
        (made(b"\x01" * 20), errors.TooShort),
        (made(b"\x02\x01", bytes(70)), errors.TooShort),
        (made(b"\x07", bytes(99)), errors.UnknownVersion),
        (made(b"\x02\x09", bytes(99)), errors.UnknownSuite),
        (made(b"\x02\x01\xff\xff\xff\xfe", bytes(99)), errors.UnknownKey),
        (made(b"\x01", bytes(60)), errors.UnknownKey),
    ],
)
def test_bad_input_has_one_error_a_kind(stage: Stage, value: str, error: type[FieldError]) -> None:
    with pytest.raises(error) as caught:
        stage.cipher().decrypt("gold", "email", 1, value)
    assert type(caught.value) is error
    assert "gold/email" in str(caught.value)
    assert not value or value not in str(caught.value)


def test_a_value_made_under_other_key_material_is_told_from_an_altered_one(stage: Stage) -> None:
    cipher = stage.cipher()
    value = cipher.encrypt("gold", "email", 1, "ana")
    with pytest.raises(errors.WrongKey):
        cipher.decrypt("gold", "email", 1, flip(value, 40, 1))  # the commitment
    with pytest.raises(errors.NotAuthentic):
        cipher.decrypt("gold", "email", 1, flip(value, 70, 1))  # the tag


def test_a_v1_value_is_refused_where_the_tenant_has_no_v1_key(stage: Stage) -> None:
    cipher = stage.cipher()
    cipher.keyring.create("legacy", "field-data", "active", bytearray(b"k" * 32))
    value = cipher.encrypt("legacy", "email", 1, "ana")
    assert formats.inspect(value).version == 1
    assert cipher.decrypt("legacy", "email", "any row", value) == "ana"
    with pytest.raises(errors.UnknownKey):
        cipher.decrypt("gold", "email", 1, value)


def test_what_is_out_of_scope_is_not_encrypted_by_accident(stage: Stage) -> None:
    cipher = stage.cipher()
    assert cipher.encrypted_fields("plain") == frozenset()
    for tenant, field in (("plain", "email"), ("gold", "name")):
        with pytest.raises(errors.OutOfScope):
            cipher.encrypt(tenant, field, 1, "x")
    with pytest.raises(errors.UnknownTenant):
        cipher.encrypt("nobody", "email", 1, "x")
    cipher.encrypt("gold", "email", 1, "x" * formats.MAXIMUM_PLAINTEXT)
    with pytest.raises(errors.TooLong):
        cipher.encrypt("gold", "email", 1, "x" * (formats.MAXIMUM_PLAINTEXT + 1))


def test_records_are_protected_and_revealed_by_scope(stage: Stage) -> None:
    cipher = stage.cipher()
    record = {"email": "ana@example.com", "name": "Ana", "phone": None}
    stored = cipher.protect("gold", record, 1)
    assert stored["name"] == "Ana"
    assert stored["phone"] is None
    assert formats.is_encrypted(str(stored["email"]))
    assert cipher.reveal("gold", stored, 1) == record
    assert cipher.protect("plain", record, 1) == record
    with pytest.raises(TypeError, match="gold/email"):
        cipher.protect("gold", {"email": 7}, 1)
    with pytest.raises(errors.PlaintextFound):
        cipher.reveal("gold", record, 1)


def test_bytes_that_are_no_text_are_an_error_that_holds_none_of_them(stage: Stage) -> None:
    cipher = stage.cipher()
    value = cipher.encrypt("gold", "email", 1, b"secret\xff")
    column = cipher.encrypt_column("gold", "email", [1], [b"secret\xff"])
    for call in (
        lambda: cipher.decrypt("gold", "email", 1, value),
        lambda: cipher.decrypt_column("gold", "email", [1], column),
        lambda: cipher.encrypt("gold", "email", 1, "secret\ud800"),
        lambda: cipher.encrypt_column("gold", "email", [1], ["secret\ud800"]),
        lambda: cipher.encrypt_deterministic("gold", "email", "secret\ud800"),
    ):
        with pytest.raises(errors.NotText, match="gold/email") as caught:
            call()
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


_SDK = Path(formats.__file__).parents[1]


def locals_of(error: BaseException | None) -> str:
    """What an error tracker shows of the SDK's frames."""
    shown: list[str] = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if Path(frame.f_code.co_filename).is_relative_to(_SDK):
                shown.append(f"{frame.f_code.co_name}: {frame.f_locals}")
        error = error.__cause__ or error.__context__
    assert shown
    return "\n".join(shown)


async def test_no_frame_that_leaves_holds_a_value(stage: Stage) -> None:
    cipher, plain = stage.cipher(), "secret@example.com"
    both = AsyncFieldCipher(cipher)
    stored, siv = (
        cipher.encrypt("gold", "email", 1, plain),
        cipher.encrypt_deterministic("gold", "email", plain),
    )
    binary = cipher.encrypt("gold", "email", 1, b"secret\xff")
    phone = BlindIndex(cipher.keyring, "customers", "phone", "phone")
    record = {"email": stored, "phone": siv}
    row: Any = None
    calls: list[Callable[[], Any]] = [
        lambda: cipher.encrypt("gold", "nofield", 1, plain),
        lambda: cipher.encrypt("nobody", "email", 1, plain),
        lambda: cipher.encrypt("gold", "email", row, plain),
        lambda: cipher.encrypt("gold", "email", 1, plain + "\ud800"),
        lambda: cipher.encrypt("gold", "email", 1, plain * 100_000),
        lambda: cipher.encrypt_column("gold", "email", [1, row], [plain, plain]),
        lambda: cipher.encrypt_column("gold", "email", [1], [plain, plain]),
        lambda: cipher.encrypt_deterministic("gold", "email", plain * 100_000),
        lambda: cipher.decrypt("gold", "email", 1, binary),
        lambda: cipher.decrypt_column("gold", "email", [1, 1], [stored, binary]),
        lambda: cipher.protect("gold", {"email": plain, "phone": 7}, 1),
        lambda: cipher.reveal("gold", record, 1),
        lambda: phone.token("gold", plain),
        lambda: phone.condition("token", "gold", plain),
        lambda: normalise("phone", plain),
    ]
    for call in calls:
        with pytest.raises((FieldError, TypeError, ValueError)) as caught:
            call()
        assert "secret" not in locals_of(caught.value)
    for start in (
        lambda: both.encrypt("gold", "nofield", 1, plain),
        lambda: both.encrypt("gold", "email", row, plain),
        lambda: both.encrypt("nobody", "email", 1, plain),
        lambda: both.encrypt_column("gold", "email", [1] * 300, [plain] * 299 + [plain + "\ud800"]),
        lambda: both.reveal("gold", record, 1),
    ):
        with pytest.raises((FieldError, TypeError)) as caught:
            await start()
        assert "secret" not in locals_of(caught.value)


@pytest.mark.parametrize("row", [None, True, 1.5, b"1", ("a", 1)])
def test_a_row_without_an_identity_is_refused_before_it_is_lost(stage: Stage, row: object) -> None:
    """As an object that a database has not given its key yet: what it was bound to would never come back."""
    with pytest.raises(TypeError, match="identity"):
        stage.cipher().encrypt("gold", "email", row, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="identity"):
        stage.cipher().encrypt_column("gold", "email", [row], ["x"])  # type: ignore[list-item]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.text(max_size=200), max_size=20), row=st.text(max_size=40))
def test_columns_and_single_values_are_the_same_format(stage: Stage, values: list[str], row: str) -> None:
    cipher = _once(stage)
    rows = [f"{row}{number}" for number in range(len(values))]
    column = cipher.encrypt_column("gold", "email", rows, values)
    assert cipher.decrypt_column("gold", "email", rows, column) == values
    assert [cipher.decrypt("gold", "email", *each) for each in zip(rows, column, strict=True)] == values
    assert len({formats.to_bytes(each)[6:30] for each in column}) == len(column)


_ciphers: dict[str, FieldCipher] = {}


def _once(stage: Stage) -> FieldCipher:
    return _ciphers.setdefault(stage.url, stage.cipher())


def test_a_column_with_one_bad_value_says_what_a_single_value_says(stage: Stage) -> None:
    cipher = stage.cipher()
    column = cipher.encrypt_column("gold", "email", [1, 2, 3], ["a", "b", "c"])
    for bad, error in [
        ("ana@example.com", errors.PlaintextFound),
        (flip(column[1], 40, 1), errors.WrongKey),
        (flip(column[1], 70, 1), errors.NotAuthentic),
        (column[0], errors.NotAuthentic),
    ]:
        with pytest.raises(error):
            cipher.decrypt_column("gold", "email", [1, 2, 3], [column[0], bad, column[2]])
    mixed = [
        column[0],
        cipher.encrypt("gold", "email", 2, "b"),
        column[2],
    ]
    assert cipher.decrypt_column("gold", "email", [1, 2, 3], mixed) == ["a", "b", "c"]
    assert cipher.decrypt_column("gold", "email", [], []) == []


@given(junk=st.one_of(st.text(), st.binary(max_size=200).map(lambda b: base64.b64encode(b).decode())))
def test_the_parser_only_ever_raises_field_errors(junk: str) -> None:
    try:
        found = formats.inspect(junk)
    except FieldError:
        return
    assert found.plaintext_bytes >= 0
    assert formats.to_text(formats.to_bytes(junk)) == junk


def test_deterministic_values_are_equal_for_equal_values_of_one_field(stage: Stage) -> None:
    cipher = stage.cipher()
    one = cipher.encrypt_deterministic("gold", "email", "ana")
    assert one == cipher.encrypt_deterministic("gold", "email", "ana")
    assert one != cipher.encrypt_deterministic("gold", "phone", "ana")
    assert one != cipher.encrypt_deterministic("second", "email", "ana")
    reader = stage.cipher(deterministic=["email", "phone"])
    assert reader.decrypt("gold", "email", "whatever row", one) == "ana"
    with pytest.raises(errors.NotAuthentic):
        reader.decrypt("gold", "phone", 1, one)


def test_a_search_finds_rows_of_the_new_and_the_old_index_version(stage: Stage) -> None:
    cipher = stage.cipher()
    index = BlindIndex(cipher.keyring, "customers", "email", "email")
    stage.sql("CREATE TABLE found (token text)")
    stage.sql("INSERT INTO found VALUES (%s)", index.token("gold", "Ana@example.com"))
    cipher.keyring.create("gold", "field-index", "pending")
    stage.sql("UPDATE fle_keys SET state = 'retiring' WHERE purpose = 'field-index' AND state = 'active'")
    stage.sql("UPDATE fle_keys SET state = 'active' WHERE purpose = 'field-index' AND state = 'pending'")
    cipher.keyring.clear()
    stage.sql("INSERT INTO found VALUES (%s)", index.token("gold", "ana@EXAMPLE.com"))
    with psycopg.connect(stage.url) as connection:
        condition = index.condition("token", "gold", "ana@example.com")
        query = sql.SQL("SELECT token FROM found WHERE {}").format(condition)
        tokens = [row[0] for row in connection.execute(query)]
    assert sorted(each.split(".")[1] for each in tokens) == ["1", "2"]
    assert index.token("gold", "ana@example.com") != index.token("second", "ana@example.com")


def test_no_key_or_value_shows_in_errors_representations_or_pickles(stage: Stage) -> None:
    cipher = stage.cipher()
    value = cipher.encrypt("gold", "email", 1, "secret-value")
    key, keyset = cipher.keyring.writer("gold")
    for thing in (cipher, cipher.keyring, key, keyset):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        assert "secret" not in repr(thing)
        assert len(repr(thing)) < 120
    with pytest.raises(TypeError):
        copy.deepcopy(cipher)
    with pytest.raises(errors.NotAuthentic) as caught:
        cipher.decrypt("gold", "email", 2, value)
    error = caught.value
    assert value not in "".join(traceback.format_exception(error))
    assert (error.__cause__, error.__context__) == (None, None)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.key_id) == (str(error), error.key_id)
