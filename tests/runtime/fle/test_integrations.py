"""Field encryption where people already are: psycopg rows, SQLAlchemy columns, pydantic models."""

from __future__ import annotations

import psycopg
import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy import create_engine, select
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from kilo.errors import BadInput
from kilo.fle import FieldCipher, errors
from kilo.fle.formats import inspect
from kilo.fle.integrations.psycopg_rows import revealed
from kilo.fle.integrations.pydantic_field import EncryptedStr, Place
from kilo.fle.integrations.sqlalchemy_type import Clear, EncryptedText, Sealed

from .conftest import Stage

TABLE = "CREATE TABLE customers (id bigint PRIMARY KEY, tenant text NOT NULL, email text, note text)"


@pytest.fixture
def cipher(stage: Stage) -> FieldCipher:
    stage.sql(TABLE)
    return stage.cipher()


def insert(stage: Stage, cipher: FieldCipher, tenant: str, row: int, email: str | None) -> None:
    record = cipher.protect(tenant, {"email": email, "note": "kept"}, row)
    stage.sql("INSERT INTO customers VALUES (%s, %s, %s, %s)", row, tenant, record["email"], record["note"])


def test_psycopg_rows_come_back_in_plain_by_each_tenant_s_scope(stage: Stage, cipher: FieldCipher) -> None:
    insert(stage, cipher, "gold", 1, "ana@example.com")
    insert(stage, cipher, "plain", 2, "bo@example.com")
    insert(stage, cipher, "gold", 3, None)
    with psycopg.connect(stage.url) as connection, connection.cursor(row_factory=revealed(cipher)) as cursor:
        rows = cursor.execute("SELECT id, tenant, email, note FROM customers ORDER BY id").fetchall()
        assert [row["email"] for row in rows] == ["ana@example.com", "bo@example.com", None]
        assert {row["note"] for row in rows} == {"kept"}
        assert cursor.execute("UPDATE customers SET note = 'new' WHERE id = 1").rowcount == 1
        with pytest.raises(BadInput, match="must select tenant and id"):
            cursor.execute("SELECT email FROM customers").fetchall()
    assert stage.sql("SELECT email FROM customers WHERE id = 1")[0][0].startswith("AgEA")


async def test_psycopg_s_async_cursors_do_so_too(stage: Stage, cipher: FieldCipher) -> None:
    insert(stage, cipher, "gold", 1, "ana@example.com")
    async with (
        await psycopg.AsyncConnection.connect(stage.url) as connection,
        connection.cursor(row_factory=revealed(cipher)) as cursor,
    ):
        await cursor.execute("SELECT id, tenant, email FROM customers")
        assert (await cursor.fetchone() or {})["email"] == "ana@example.com"


def test_a_row_moved_in_the_database_does_not_come_back(stage: Stage, cipher: FieldCipher) -> None:
    insert(stage, cipher, "gold", 1, "ana@example.com")
    stage.sql("UPDATE customers SET id = 2")
    with psycopg.connect(stage.url) as connection, connection.cursor(row_factory=revealed(cipher)) as cursor:
        cursor.execute("SELECT id, tenant, email FROM customers")
        with pytest.raises(errors.NotAuthentic):
            cursor.fetchall()


def test_sqlalchemy_columns_take_clear_values_and_give_sealed_ones(stage: Stage, cipher: FieldCipher) -> None:
    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant: Mapped[str]
        email: Mapped[Sealed | Clear | None] = mapped_column(EncryptedText(cipher, "email"))

    engine = create_engine(stage.url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        made = Customer(id=1, tenant="gold", email=Clear("gold", 1, "ana@example.com"))
        assert "ana" not in repr(made.email)
        session.add_all([made, Customer(id=2, tenant="gold", email=None)])
        session.commit()
    ((stored,),) = stage.sql("SELECT email FROM customers WHERE id = 1")
    assert inspect(stored).suite == "KC-XAES-256-GCM"
    with Session(engine) as session:
        one, two = session.scalars(select(Customer).order_by(Customer.id)).all()
        assert isinstance(one.email, Sealed)
        assert one.email.reveal(one.tenant, one.id) == "ana@example.com"
        assert two.email is None
        with pytest.raises(errors.NotAuthentic):
            one.email.reveal(one.tenant, 2)
        # What was not changed is not written again, and an object can be told to take another value.
        one.email = Clear("gold", 1, "new@example.com")
        session.commit()
        session.refresh(one)
        again = session.scalars(select(Customer.email).where(Customer.id == 1)).one()
        assert isinstance(again, Sealed)
        assert again.reveal("gold", 1) == "new@example.com"
    with Session(engine) as session:
        for wrong, said in [("ana@example.com", "give Clear"), (Clear("gold", None, "x"), "identity")]:  # type: ignore[arg-type]
            session.add(Customer(id=3, tenant="gold", email=wrong))
            with pytest.raises(StatementError, match=said):
                session.flush()
            session.rollback()
    engine.dispose()


def test_pydantic_models_are_plain_inside_and_encrypted_outside(cipher: FieldCipher) -> None:
    class Customer(BaseModel):
        id: int
        email: EncryptedStr
        phone: EncryptedStr | None = None

    place = Place(cipher, "gold", 7)
    customer = Customer(id=7, email="ana@example.com")
    stored = customer.model_dump(context=place)
    assert stored["email"].startswith("AgEA")
    assert stored["phone"] is None
    assert Customer.model_validate(stored, context=place) == customer
    assert Customer.model_validate_json(customer.model_dump_json(context=place), context=place) == customer
    with pytest.raises(PydanticSerializationError, match="Place as context"):
        customer.model_dump()
    with pytest.raises(errors.NotAuthentic):
        Customer.model_validate(stored, context=Place(cipher, "gold", 8))
    with pytest.raises(errors.WrongTenant):
        Customer.model_validate(stored, context=Place(cipher, "second", 7))
    assert customer.model_dump(context=Place(cipher, "plain", 7))["email"] == "ana@example.com"


def test_a_model_that_is_read_back_without_its_place_is_not_taken_for_plain(cipher: FieldCipher) -> None:
    """Otherwise the encrypted text would be encrypted once more when the model is written again."""

    class Customer(BaseModel):
        email: EncryptedStr

    stored = Customer(email="ana@example.com").model_dump(context=Place(cipher, "gold", 7))
    with pytest.raises(ValidationError, match="Place as context"):
        Customer.model_validate(stored)
