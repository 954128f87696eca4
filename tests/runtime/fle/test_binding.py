"""What a value is bound to: its row by parts, its column by the suite; and values of before stay readable."""

from __future__ import annotations

import os
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilo.contract import EncryptedTable
from kilo.fle import AsyncFieldCipher, FieldCipher, errors
from kilo.fle.datakey import XaesKey
from kilo.fle.deterministic import DeterministicColumn
from kilo.fle.formats import DocumentRow, RowId, associated_data, inspect, length_prefixed, row_data, to_text
from kilo.fle.rotation.steps import Rotations
from kilo.sensitive import TABLE, hide, reveal

from .conftest import PEOPLE, Stage
from .test_rotation import approved, quiet

ROW = UUID("c0ffee00-1234-4abc-8def-0123456789ab")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def as_before(cipher: FieldCipher, field: str, row: str, plaintext: str) -> str:
    """A value as it was written when a row was one text, spelled as it was given."""
    key, _ = cipher.keyring.writer("gold")
    assert isinstance(key, XaesKey)
    nonce = os.urandom(24)
    place = associated_data(key.header, "gold", cipher.table, field) + length_prefixed(row.encode())
    sealed, commitment = key._xaes.seal(nonce, plaintext.encode(), place)  # pyright: ignore[reportPrivateUsage]
    return to_text(key.header + nonce + commitment + sealed[-16:] + sealed[:-16])


@given(st.lists(st.one_of(TEXT, st.builds(DocumentRow, TEXT, TEXT)), min_size=2, max_size=2, unique=True))
def test_no_two_rows_share_an_encoding(rows: list[RowId]) -> None:
    assert row_data(rows[0]) != row_data(rows[1])


async def test_a_value_does_not_move_between_events_whose_names_and_pointers_join_alike(stage: Stage) -> None:
    cipher = AsyncFieldCipher(stage.cipher(TABLE))
    one = await hide(cipher, "gold", "gold/order1", {"contact": {"email": "ana@example.com"}})
    two = await hide(cipher, "gold", "gold/order1/contact", {"email": "mallory@example.com"})
    one["contact"]["email"], two["email"] = two["email"], one["contact"]["email"]
    for name, payload in (("gold/order1", one), ("gold/order1/contact", two)):
        with pytest.raises(errors.NotAuthentic):
            await reveal(cipher, "gold", name, payload)


async def test_documents_values_of_before_stay_readable_and_a_rotation_ends_them(stage: Stage) -> None:
    events = EncryptedTable(
        table=TABLE, context=TABLE, row_column="fingerprint", documents={"payload": ("email",)}
    )
    settings = stage.outputs.field_encryption.model_copy(update={"tables": (events,)})
    stage.outputs = stage.outputs.model_copy(update={"field_encryption": settings})
    old = stage.cipher(TABLE)
    nested, top = as_before(old, "email", "gold/1/a", "ana"), as_before(old, "email", "gold/2", "bo")
    stage.sql(
        "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload) VALUES"
        " ('gold/1', 'gold', 'order', '1', 'order.paid', jsonb_build_object('a',"
        " jsonb_build_object('email', %s::text))),"
        " ('gold/2', 'gold', 'order', '1', 'order.paid', jsonb_build_object('email', %s::text))",
        nested,
        top,
    )

    async def read() -> list[object]:
        rows = stage.sql("SELECT fingerprint, payload FROM events ORDER BY fingerprint")
        return [await reveal(AsyncFieldCipher(stage.cipher(TABLE)), "gold", *row) for row in rows]

    assert await read() == [{"a": {"email": "ana"}}, {"email": "bo"}]
    rotations = Rotations(stage.outputs, stage.url, stage.cipher(TABLE))
    plan = approved(stage, rotations).digest()
    assert rotations.run(plan, "tester", quiet) == (True, [])
    rotations.verify(plan, "tester")
    rotations.finalize(plan, "requester", PEOPLE["requester"])
    assert await read() == [{"a": {"email": "ana"}}, {"email": "bo"}]
    with pytest.raises(errors.Downgraded):
        await reveal(AsyncFieldCipher(stage.cipher(TABLE)), "gold", "gold/1", {"a": {"email": nested}})


def test_a_uuid_and_its_text_are_one_row_however_it_is_spelled(stage: Stage) -> None:
    cipher = stage.cipher()
    spelled: tuple[RowId, ...] = (ROW, str(ROW), str(ROW).upper())
    for written in spelled:
        value = cipher.encrypt("gold", "email", written, "ana")
        (column,) = cipher.encrypt_column("gold", "email", [written], ["ana"])
        for read in spelled:
            assert cipher.decrypt("gold", "email", read, value) == "ana"
            assert cipher.decrypt_column("gold", "email", [read], [column]) == ["ana"]
    before = as_before(cipher, "email", str(ROW).upper(), "bo")
    assert [cipher.decrypt("gold", "email", read, before) for read in spelled] == ["bo"] * 3
    with pytest.raises(errors.NotAuthentic):
        cipher.decrypt("gold", "email", UUID(int=ROW.int + 1), before)
    # Other texts are taken as they are.
    value = cipher.encrypt("gold", "email", ROW.hex.upper(), "cy")
    with pytest.raises(errors.NotAuthentic):
        cipher.decrypt("gold", "email", ROW.hex, value)


def test_a_column_takes_only_the_suite_of_its_field(stage: Stage) -> None:
    """An AES-SIV value binds no row: taken in a randomised column, it could be put into any."""
    cipher, searched = stage.cipher(), stage.cipher(deterministic=["email"])
    randomised, siv = (
        cipher.encrypt("gold", "email", 1, "ana"),
        cipher.encrypt_deterministic("gold", "email", "bo"),
    )
    with pytest.raises(errors.WrongSuite, match="deterministic"):
        cipher.decrypt("gold", "email", 1, siv)
    with pytest.raises(errors.WrongSuite):
        cipher.decrypt_column("gold", "email", [1, 2], [randomised, siv])
    with pytest.raises(errors.WrongSuite):
        searched.decrypt("gold", "email", 1, randomised)
    with pytest.raises(errors.WrongSuite):
        searched.decrypt_column("gold", "email", [1], [randomised])
    assert searched.decrypt("gold", "email", 1, siv) == "bo"
    # Such a field is also written so, and other fields of the same cipher are not.
    for written in (
        searched.encrypt("gold", "email", 7, "bo"),
        searched.encrypt_column("gold", "email", [7], ["bo"])[0],
        searched.protect("gold", {"email": "bo"}, 7)["email"],
    ):
        assert written == siv
    assert searched.reveal("gold", {"email": siv}, 7) == {"email": "bo"}
    assert DeterministicColumn(searched, "email").values("gold", "bo") == [siv]
    assert inspect(searched.encrypt("gold", "phone", 7, "bo")).suite == "KC-XAES-256-GCM"
    # What rotation opens, whichever suite it was, opens nothing for the readers after it.
    assert cipher.decrypt_stored("gold", "email", 1, siv) == b"bo"
    with pytest.raises(errors.WrongSuite):
        cipher.decrypt("gold", "email", 1, siv)


@pytest.mark.parametrize("wrong", [5, None, 1.5, ["a"], True])
def test_what_is_neither_text_nor_bytes_is_not_encrypted(stage: Stage, wrong: object) -> None:
    """bytes(5) would be five zeros."""
    cipher = stage.cipher()
    for write in (
        lambda: cipher.encrypt("gold", "email", 1, wrong),  # type: ignore[arg-type]
        lambda: cipher.encrypt_column("gold", "email", [1], [wrong]),  # type: ignore[list-item]
        lambda: cipher.encrypt_deterministic("gold", "email", wrong),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="gold/email: text or bytes are encrypted"):
            write()
