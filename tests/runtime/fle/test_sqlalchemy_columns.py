"""SQLAlchemy columns that take clear values and store sealed ones."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import (
    create_model,
)
from sqlalchemy import create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from kilo.errors import BadInput
from kilo.fle import FieldCipher, errors
from kilo.fle.deterministic import BlindIndex
from kilo.fle.formats import inspect
from kilo.fle.integrations.pydantic_field import Encrypted, EncryptedModel
from kilo.fle.integrations.sqlalchemy_type import Clear, EncryptedText, NotEncryptable, Sealed

from .conftest import Stage
from .test_integrations import TABLE


@pytest.fixture
def cipher(stage: Stage) -> FieldCipher:
    stage.sql(TABLE)
    return stage.cipher()


def people(cipher: FieldCipher, **settings: Any) -> Any:
    """A mapped class with an encrypted column and its tokens."""

    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant: Mapped[str]
        email: Mapped[Sealed | Clear | None] = mapped_column(EncryptedText(cipher, "email", **settings))
        email_token: Mapped[str | None]

    return Customer


@pytest.fixture
def session(stage: Stage) -> Iterator[Session]:
    stage.sql("CREATE TABLE people (id bigint PRIMARY KEY, tenant text, email text, email_token text)")
    engine = create_engine(stage.url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_sqlalchemy_columns_take_clear_values_and_give_sealed_ones(stage: Stage, session: Session) -> None:
    customer = people(stage.cipher())
    made = customer(id=1, tenant="gold", email=Clear("gold", 1, "ana@example.com"))
    assert "ana" not in repr(made.email)
    session.add_all([made, customer(id=2, tenant="gold", email=None)])
    session.add(customer(id=3, tenant="plain", email=Clear("plain", 3, "cy@example.com")))
    session.commit()
    stored = dict(stage.sql("SELECT id, email FROM people"))
    assert inspect(stored[1]).suite == "KC-XAES-256-GCM"
    assert stored[3] == "cy@example.com"
    session.expunge_all()
    one, two, three = session.scalars(select(customer).order_by(customer.id)).all()
    assert isinstance(one.email, Sealed)
    assert one.email.reveal(one.tenant, one.id) == "ana@example.com"
    assert three.email.reveal(three.tenant, three.id) == "cy@example.com"
    assert two.email is None
    with pytest.raises(errors.NotAuthentic):
        one.email.reveal(one.tenant, 2)
    # What was not changed is not written again, and an object can be told to take another value.
    one.email = Clear("gold", 1, "new@example.com")
    with pytest.raises(BadInput):
        one.email.reveal("gold", 2)
    session.commit()
    session.refresh(one)
    again = session.scalars(select(customer.email).where(customer.id == 1)).one()
    assert isinstance(again, Sealed)
    assert again.reveal("gold", 1) == "new@example.com"


@pytest.mark.parametrize(
    ("email", "said"),
    [
        ("secret.person@example.com", "email: give Clear"),
        (Clear("gold", None, "secret.person"), "gold"),
        (Clear("gold", 4, "secret.person"), "another row"),
        (Clear("second", 3, "secret.person"), "row of second"),
    ],
)
def test_what_is_not_this_rows_is_refused_without_showing_it(
    stage: Stage, session: Session, email: Any, said: str
) -> None:
    customer = people(stage.cipher())
    session.add(customer(id=3, tenant="gold", email=email))
    with pytest.raises(NotEncryptable, match=said) as refused:
        session.flush()
    assert "secret" not in "".join(traceback.format_exception_only(refused.value))
    assert refused.value.__cause__ is None
    session.rollback()
    if isinstance(email, str):
        with pytest.raises(NotEncryptable) as refused:
            session.execute(insert(customer).values(id=3, tenant="gold", email=email))
        assert "secret" not in "".join(traceback.format_exception_only(refused.value))
    assert stage.sql("SELECT count(*) FROM people") == [(0,)]


def test_a_value_does_not_move_between_objects(stage: Stage, session: Session) -> None:
    customer = people(stage.cipher())
    session.add_all(
        [
            customer(id=1, tenant="gold", email=Clear("gold", 1, "ana@example.com")),
            customer(id=2, tenant="gold", email=None),
            customer(id=3, tenant="second", email=None),
        ]
    )
    session.commit()
    for other, error in ((2, errors.NotAuthentic), (3, errors.WrongTenant)):
        session.get_one(customer, other).email = session.get_one(customer, 1).email
        with pytest.raises(error):
            session.flush()
        session.rollback()
    _ = session.get_one(customer, 1).email
    session.get_one(customer, 1).tenant = "second"
    with pytest.raises(errors.WrongTenant):
        session.flush()
    session.rollback()


def test_an_encrypted_column_is_searched_by_token_or_not_at_all(stage: Stage, session: Session) -> None:
    cipher = stage.cipher()
    customer = people(cipher, index=BlindIndex(cipher.keyring, "people", "email", "email"))
    session.add_all(
        [
            customer(id=n, tenant=tenant, email=None if value is None else Clear(tenant, n, value))
            for n, tenant, value in [
                (1, "gold", "ana@example.com"),
                (2, "gold", "bo@example.com"),
                (3, "second", "ana@example.com"),
                (4, "gold", None),
            ]
        ]
    )
    session.commit()

    def found(condition: Any) -> list[int]:
        return sorted(session.scalars(select(customer.id).where(condition)))

    ana, bo = Clear("gold", None, "Ana@Example.com"), Clear("gold", None, "bo@example.com")
    assert found(customer.email == ana) == [1]
    assert found(customer.email != ana) == [2, 3]
    assert found(customer.email.in_([ana, bo])) == [1, 2]
    assert found(customer.email.not_in([ana, bo])) == [3]
    assert found(customer.email.is_(None)) == found(customer.email == None) == [4]  # noqa: E711
    assert found(customer.email.is_not(None)) == [1, 2, 3]
    other = aliased(customer)
    assert list(session.scalars(select(other.id).where(other.email == bo))) == [2]
    session.get_one(customer, 2).email = Clear("gold", 2, "new@example.com")
    session.get_one(customer, 1).email = None
    session.commit()
    assert found(customer.email.in_([ana, bo, Clear("gold", None, "new@example.com")])) == [2]
    assert stage.sql("SELECT email_token FROM people WHERE id = 1") == [(None,)]
    stored = session.get_one(customer, 2).email
    for attempt in (
        lambda: customer.email == "secret@example.com",
        lambda: customer.email == stored,
        lambda: customer.email.in_(["secret@example.com"]),
        lambda: customer.email.like("%secret%"),
        lambda: customer.email < ana,
        customer.email.desc,
        lambda: customer.email.contains("secret"),
        lambda: customer.email + "secret",
        lambda: "secret" + customer.email,
    ):
        with pytest.raises(NotEncryptable, match="is compared with None") as refused:
            attempt()
        assert "secret" not in str(refused.value)
    unsearchable, short = (
        people(cipher),
        people(cipher, index=BlindIndex(cipher.keyring, "people", "email", "email", bits=32)),
    )
    with pytest.raises(NotEncryptable, match="has an index"):
        _ = unsearchable.email == ana
    with pytest.raises(NotEncryptable, match="share a token"):
        _ = short.email != ana


def test_names_that_the_stage_does_not_know_are_refused_where_a_class_is_made(
    stage: Stage, cipher: FieldCipher
) -> None:
    class Outer(EncryptedModel, outputs=stage.outputs):
        pass

    with pytest.raises(BadInput, match=r"EncryptedText of customers: .* no field 'e_mail'.*email, phone"):
        EncryptedText(cipher, "e_mail")
    with pytest.raises(BadInput, match=r"Typo.mail: .* no field 'e_mail'"):
        create_model("Typo", __base__=Outer, mail=Annotated[str, Encrypted("e_mail")])

    with pytest.raises(BadInput, match=r"Stageless.email: name the stage"):
        create_model("Stageless", __base__=EncryptedModel, email=Annotated[str, Encrypted("email")])

    same: Any = Annotated[str, Encrypted("email")]
    optional: Any = same | None
    with pytest.raises(BadInput, match=r"Twice.backup: email is the field 'email' already"):
        create_model("Twice", __base__=Outer, email=same, backup=(optional, None))

    inside: Any
    for inside in (
        list[Annotated[str, Encrypted("email")]],
        dict[str, Annotated[str, Encrypted("email")]],
        Annotated[str, Encrypted("email")] | int,
        list[Annotated[str, Encrypted("email")] | None],
    ):
        with pytest.raises(BadInput, match=r"Inside.emails: an encrypted field is a model's own"):
            create_model("Inside", __base__=Outer, emails=inside)
    # A stage that encrypts nothing, such as a developer's own, knows no names to compare with.
    nothing = stage.outputs.model_copy(
        update={
            "tenants": {"plain": stage.outputs.tenants["plain"]},
            "field_encryption": stage.outputs.field_encryption.model_copy(update={"tables": ()}),
        }
    )

    class Anywhere(EncryptedModel, outputs=nothing):
        email: Annotated[str, Encrypted("email")]

    assert Anywhere(email="ana").email == "ana"
