"""Field encryption where people already are: psycopg rows, SQLAlchemy columns, pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticSerializationError

from kilo.errors import BadInput
from kilo.fle import FieldCipher, errors
from kilo.fle.integrations.psycopg_rows import revealed
from kilo.fle.integrations.pydantic_field import Encrypted, EncryptedModel, RowContext

from .conftest import Stage

TABLE = "CREATE TABLE customers (id bigint PRIMARY KEY, tenant text NOT NULL, email text, note text)"


@pytest.fixture
def cipher(stage: Stage) -> FieldCipher:
    stage.sql(TABLE)
    return stage.cipher()


def store(stage: Stage, cipher: FieldCipher, tenant: str, row: int, email: str | None) -> None:
    record = cipher.protect(tenant, {"email": email, "note": "kept"}, row)
    stage.sql("INSERT INTO customers VALUES (%s, %s, %s, %s)", row, tenant, record["email"], record["note"])


def test_psycopg_rows_come_back_in_plain_by_each_tenant_s_scope(stage: Stage, cipher: FieldCipher) -> None:
    store(stage, cipher, "gold", 1, "ana@example.com")
    store(stage, cipher, "plain", 2, "bo@example.com")
    store(stage, cipher, "gold", 3, None)
    with psycopg.connect(stage.url) as connection, connection.cursor(row_factory=revealed(cipher)) as cursor:
        rows = cursor.execute("SELECT id, tenant, email, note FROM customers ORDER BY id").fetchall()
        assert [row["email"] for row in rows] == ["ana@example.com", "bo@example.com", None]
        assert {row["note"] for row in rows} == {"kept"}
        assert cursor.execute("UPDATE customers SET note = 'new' WHERE id = 1").rowcount == 1
        with pytest.raises(BadInput, match="must select tenant and id"):
            cursor.execute("SELECT email FROM customers").fetchall()
    assert stage.sql("SELECT email FROM customers WHERE id = 1")[0][0].startswith("AgEA")


async def test_psycopg_s_async_cursors_do_so_too(stage: Stage, cipher: FieldCipher) -> None:
    store(stage, cipher, "gold", 1, "ana@example.com")
    async with (
        await psycopg.AsyncConnection.connect(stage.url) as connection,
        connection.cursor(row_factory=revealed(cipher)) as cursor,
    ):
        await cursor.execute("SELECT id, tenant, email FROM customers")
        assert (await cursor.fetchone() or {})["email"] == "ana@example.com"


def test_a_row_moved_in_the_database_does_not_come_back(stage: Stage, cipher: FieldCipher) -> None:
    store(stage, cipher, "gold", 1, "ana@example.com")
    stage.sql("UPDATE customers SET id = 2")
    with psycopg.connect(stage.url) as connection, connection.cursor(row_factory=revealed(cipher)) as cursor:
        cursor.execute("SELECT id, tenant, email FROM customers")
        with pytest.raises(errors.NotAuthentic):
            cursor.fetchall()


def test_a_column_under_another_name_is_not_passed_on_encrypted(stage: Stage, cipher: FieldCipher) -> None:
    store(stage, cipher, "gold", 1, "ana@example.com")
    # As much text as a tenant could store to look like an encrypted value stops nobody.
    lookalike = cipher.encrypt("gold", "email", 2, "x")
    stage.sql("UPDATE customers SET note = %s", lookalike)
    query = "SELECT id, tenant, email AS contact, note FROM customers"
    with psycopg.connect(stage.url) as connection:
        with connection.cursor(row_factory=revealed(cipher)) as cursor:
            cursor.execute(query)
            with pytest.raises(BadInput, match=r"contact holds gold/email encrypted: .*columns="):
                cursor.fetchall()
        said = revealed(cipher, columns={"contact": "email"}, tenant_column="whose")
        with connection.cursor(row_factory=said) as cursor:
            rows = cursor.execute(query.replace("tenant", "tenant AS whose")).fetchall()
            assert rows == [{"id": 1, "whose": "gold", "contact": "ana@example.com", "note": lookalike}]
            with pytest.raises(BadInput, match="must select whose and id"):
                cursor.execute("SELECT email AS contact FROM customers").fetchall()


def test_queries_without_encrypted_fields_need_no_row(stage: Stage, cipher: FieldCipher) -> None:
    store(stage, cipher, "gold", 1, "ana@example.com")
    with psycopg.connect(stage.url) as connection, connection.cursor(row_factory=revealed(cipher)) as cursor:
        assert cursor.execute("SELECT count(*) FROM customers").fetchone() == {"count": 1}
        assert cursor.execute("SELECT note, note FROM customers").fetchone() == {"note": "kept"}
        joined = "SELECT c.*, o.id FROM customers c CROSS JOIN (SELECT 42 AS id) o"
        with pytest.raises(BadInput, match="selects id twice"):
            cursor.execute(joined).fetchall()
        outer = "SELECT c.id, c.tenant, c.email FROM (SELECT 1) o LEFT JOIN customers c ON false"
        assert cursor.execute(outer).fetchone() == {"id": None, "tenant": None, "email": None}


def customers(stage: Stage) -> Any:
    class Customer(EncryptedModel, outputs=stage.outputs):
        id: int
        mail: Annotated[str, Encrypted("email")] = Field(alias="e-mail")
        phone: Annotated[str, StringConstraints(max_length=12), Encrypted("phone")] | None = None
        model_config = ConfigDict(validate_by_name=True, serialize_by_alias=False)

    return Customer


def test_pydantic_models_are_plain_inside_and_encrypted_outside(stage: Stage, cipher: FieldCipher) -> None:
    customer = customers(stage)
    context = RowContext(cipher, "gold", 7)
    ana = customer(id=7, mail="ana@example.com")
    stored = ana.model_dump(context=context)
    # By the field that the type says, whatever the attribute is called.
    assert cipher.decrypt("gold", "email", 7, stored["mail"]) == "ana@example.com"
    assert stored["phone"] is None
    assert customer.model_validate(stored, context=context) == ana
    assert customer.model_validate_json(ana.model_dump_json(context=context), context=context) == ana
    assert customer.model_validate(ana.model_dump(context=context, by_alias=True), context=context) == ana
    full = customer(id=7, mail="ana@example.com", phone="+4670000001")
    assert customer.model_validate(full.model_dump(context=context), context=context) == full
    for wrong in (ana.model_dump, ana.model_dump_json, lambda: TypeAdapter(customer).dump_python(ana)):
        with pytest.raises(PydanticSerializationError, match="RowContext as its context"):
            wrong()
    with pytest.raises(errors.NotAuthentic):
        customer.model_validate(stored, context=RowContext(cipher, "gold", 8))
    with pytest.raises(errors.WrongTenant):
        customer.model_validate(stored, context=RowContext(cipher, "second", 7))
    assert ana.model_dump(context=RowContext(cipher, "plain", 7))["mail"] == "ana@example.com"


def test_a_plain_value_in_storage_is_not_taken_for_authentic(stage: Stage, cipher: FieldCipher) -> None:
    with pytest.raises(errors.PlaintextFound):
        customers(stage).model_validate(
            {"id": 7, "mail": "injected@evil.example"}, context=RowContext(cipher, "gold", 7)
        )
    kept = customers(stage).model_validate(
        {"id": 7, "mail": "a@b.example"}, context=RowContext(cipher, "plain", 7)
    )
    assert kept.mail == "a@b.example"


def test_a_model_that_is_read_back_without_its_place_is_not_taken_for_plain(
    stage: Stage, cipher: FieldCipher
) -> None:
    """Otherwise the encrypted text would be encrypted once more when the model is written again."""
    customer = customers(stage)
    stored = customer(id=7, mail="ana@example.com").model_dump(context=RowContext(cipher, "gold", 7))
    with pytest.raises(ValidationError, match="RowContext as its context"):
        customer.model_validate(stored)


def test_no_value_shows_in_a_models_repr_or_errors(stage: Stage, cipher: FieldCipher) -> None:
    customer = customers(stage)

    class Order(EncryptedModel, outputs=stage.outputs):
        customer: customer  # type: ignore[valid-type]
        note: str

    class Checked(EncryptedModel, outputs=stage.outputs):
        email: Annotated[str, Encrypted("email")]

        @field_validator("email")
        @classmethod
        def _check(cls, value: str) -> str:
            msg = f"{{{value}}} is on the list"
            raise ValueError(msg)

    one = customer(id=7, mail="secret@example.com", phone="+4670000001")
    assert repr(one) == "Customer(id=7, mail=(hidden), phone=(hidden))"
    for shown in (repr(one), str(one), repr([one]), repr(Order(customer=one, note="n"))):
        assert "secret" not in shown
        assert "+467" not in shown
    context = RowContext(cipher, "gold", 7)
    stored = {"id": 7, "mail": one.model_dump(context=context)["mail"]}
    long = {**stored, "phone": cipher.encrypt("gold", "phone", 7, "secret" * 9)}
    for attempt in (
        lambda: customer(id="x", mail="secret@example.com"),
        lambda: customer(mail="secret@example.com"),
        lambda: customer(id=7, mail=["secret"]),
        lambda: customer(id=7, mail="m", phone="secret+4670000001"),
        lambda: customer.model_validate(long, context=context),
        lambda: customer.model_validate_json('{"id": 7, "e-mail": "secret", "phone": "secret+467000000"}'),
        lambda: customer.model_validate_json('{"e-mail": "secret"'),
        lambda: Order.model_validate({"customer": {"id": 7, "mail": "secret"}}),
        lambda: Order.model_validate({"customer": {"id": "x", "mail": "secret"}, "note": "n"}),
        lambda: Checked(email="secret"),
    ):
        with pytest.raises(ValidationError) as refused:
            attempt()
        assert (
            "secret"
            not in f"{refused.value} {refused.value!r} {refused.value.errors()} {refused.value.json()}"
        )
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None
    with pytest.raises(ValidationError, match=r"phone\n\s+String should have at most 12 characters"):
        customer(id=7, mail="m", phone="x" * 13)


def test_an_encrypted_field_outside_of_an_encrypted_model_is_refused(cipher: FieldCipher) -> None:
    class Plain(BaseModel):
        email: Annotated[str, Encrypted("email")]

    for attempt in (
        lambda: Plain(email="ana"),
        lambda: TypeAdapter(list[Annotated[str, Encrypted("email")]]).validate_python(["ana"]),
    ):
        with pytest.raises(TypeError, match="belongs into an EncryptedModel"):
            attempt()
    with pytest.raises(PydanticSerializationError, match="from an EncryptedModel"):
        Plain.model_construct(email="ana").model_dump(context=RowContext(cipher, "gold", 7))
