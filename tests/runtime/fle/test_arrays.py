"""Array literals are read back by PostgreSQL as they were, whatever is in a value."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilo.fle.rotation.arrays import bytea_array, text_array

from .conftest import Stage

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
AWKWARD = ['"', "\\", '\\"', "{}", "NULL", "", " ", ",", "a\nb", "\\x00", "'", "%s", "\u2028"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | TEXT | st.sampled_from(AWKWARD)), raw=st.lists(st.binary()))
def test_what_goes_in_comes_out(stage: Stage, values: list[str | None], raw: list[bytes]) -> None:
    ((texts, blobs),) = stage.sql("SELECT %s::text[], %s::bytea[]", text_array(values), bytea_array(raw))
    assert texts == values
    assert blobs == raw
