"""Which changes of an event's schema break somebody, and what the commands say of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kilo.schemas.changes import changes
from tests.runtime.schemas.test_folder import PAID, changed, folder, parsed

KILO = Path(sys.executable).parent / "kilo"


def kilo(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KILO, "events", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = changed()
    edit(document)
    return document


def put(name: str, schema: object) -> dict[str, Any]:
    return edited(lambda document: document["properties"].__setitem__(name, schema))


HARMLESS = {
    "words": changed(title="Paid", description="Else.", examples=[{"amount": 10}], **{"x-owner": "shop"}),
    "a new property": put("currency", {"type": "string"}),
    "a property gone": edited(lambda document: document["properties"].pop("state")),
    "words deep down": put("rate", {"type": "number", "multipleOf": 0.1, "maximum": 0.5, "title": "Rate"}),
    "a new property of a part": edited(
        lambda document: document["$defs"]["line"]["properties"].__setitem__("n", {"type": "integer"})
    ),
    "a part renamed": edited(
        lambda document: (
            document.__setitem__("$defs", {"row": document["$defs"]["line"]}),
            document["properties"]["lines"].__setitem__("items", {"$ref": "#/$defs/row"}),
        )
    ),
    "a part written out": edited(
        lambda document: document["properties"]["lines"].__setitem__("items", document.pop("$defs")["line"])
    ),
}
BREAKING = {
    "another type": (
        put("amount", {"type": "string", "minimum": 0, "multipleOf": 5}),
        "/properties/amount/type: was",
    ),
    "a wider type": (
        put("amount", {"type": "number", "minimum": 0, "multipleOf": 5}),
        '/properties/amount/type: was "integer", is "number"',
    ),
    "a looser limit": (
        put("amount", {"type": "integer", "multipleOf": 5}),
        "/properties/amount/minimum: is gone",
    ),
    "one more required": (changed(required=["amount", "state"]), "/required: asks for state"),
    "none required": (changed(required=[]), "/required: no longer asks for amount"),
    "required gone": (changed(required=None), "/required: no longer asks for amount"),
    "a new value": (put("state", {"enum": ["paid", "due", "late"]}), '/properties/state/enum: "late" is new'),
    "a value gone": (put("state", {"enum": ["paid"]}), '/properties/state/enum: "due" is gone'),
    "deep in a part": (
        edited(lambda document: document["$defs"]["line"].__setitem__("required", [])),
        "/properties/lines/items/required: no longer asks for sku",
    ),
    "another aggregate": (changed(**{"x-aggregate": "payment"}), "/x-aggregate: was"),
    "others typed": (changed(additionalProperties={"type": "string"}), "/additionalProperties: is new"),
    "an unknown keyword": (changed(minProperties=1), "/minProperties: is new: 1"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless(name: str) -> None:
    found = changes(parsed(paid=PAID), parsed(paid=HARMLESS[name]))
    assert [each for each in found if each.breaking] == []


@pytest.mark.parametrize("name", BREAKING)
def test_breaking(name: str) -> None:
    document, said = BREAKING[name]
    document.pop("examples")
    found = changes(parsed(paid=PAID), parsed(paid={**document, "examples": [_example(document)]}))
    said_first = next(f"{each.pointer}: {each.what}" for each in found if each.breaking)
    assert said_first.startswith(said)


def _example(document: dict[str, Any]) -> dict[str, Any]:
    amount = "x" if document["properties"]["amount"]["type"] == "string" else 5
    return {"amount": amount, "state": "paid"}


def test_in_the_other_direction_too() -> None:
    """What is added may be taken back, and what is closed to others is a promise about new ones."""
    others = changed(additionalProperties={"type": "string"})
    more = {**others, "properties": {**others["properties"], "n": {"type": "integer"}}}
    assert [each.breaking for each in changes(parsed(paid=others), parsed(paid=more))] == [True]
    assert [each.breaking for each in changes(parsed(paid=more), parsed(paid=others))] == [True]


def test_true_is_not_one() -> None:
    found = changes(parsed(paid=put("a", {"const": True})), parsed(paid=put("a", {"const": 1})))
    assert [each.pointer for each in found] == ["/properties/a/const"]


def test_a_part_that_contains_itself_is_compared_once() -> None:
    def tree(kind: str) -> dict[str, Any]:
        part = {"type": "object", "properties": {"of": {"$ref": "#/$defs/t"}, "n": {"type": kind}}}
        return changed(**{"$defs": {"t": part}, "properties": {"a": {"$ref": "#/$defs/t"}}})

    found = changes(parsed(paid=tree("integer")), parsed(paid=tree("string")))
    assert [each.pointer for each in found] == ["/properties/a/properties/n/type"]


def test_a_kind_goes_only_after_it_was_called_deprecated() -> None:
    assert [each.breaking for each in changes(parsed(paid=PAID), parsed())] == [True]
    assert [each.breaking for each in changes(parsed(paid=changed(deprecated=True)), parsed())] == [False]
    assert [each.breaking for each in changes(parsed(), parsed(paid=PAID))] == [False]


class TestCommands:
    def test_what_is_recorded_is_held_to(self, tmp_path: Path) -> None:
        place = folder(tmp_path / "events", **{"order.paid": PAID})
        assert "compared with nothing" in kilo("check", cwd=tmp_path).stdout
        assert kilo("record", cwd=tmp_path).stdout == "1 kinds of events recorded\n"
        assert kilo("record", cwd=tmp_path).stdout == "1 kinds of events as they were recorded\n"
        folder(
            place,
            **{"order.paid": changed(required=["amount", "state"], examples=[{"amount": 5, "state": "due"}])},
        )
        before = (place / "recorded.lock").read_text()
        for command in ("check", "record"):
            done = kilo(command, cwd=tmp_path)
            assert done.returncode == 1
            assert "events/order.paid.json: /required: asks for state" in done.stderr
        assert (place / "recorded.lock").read_text() == before
        answer = json.loads(kilo("check", "--json", cwd=tmp_path).stdout)
        assert answer["changes"][0]["breaking"] is True

    def test_a_commit_is_compared_with(self, tmp_path: Path) -> None:
        git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com"]
        place = folder(tmp_path / "events", **{"order.paid": PAID})
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
            subprocess.run([*git, *arguments], check=True)
        assert kilo("check", "--against", "HEAD", cwd=tmp_path).returncode == 0
        (place / "order.paid.json").rename(place / "order.paid.v2.json")
        done = kilo("check", "--against", "HEAD", cwd=tmp_path)
        assert (done.returncode, "order.paid.json: /: is gone" in done.stderr) == (1, True)

    @pytest.mark.parametrize("ref", ["nowhere", "--output=x", "HEAD~99"])
    def test_a_commit_that_is_not_there_is_said(self, ref: str, tmp_path: Path) -> None:
        folder(tmp_path / "events", **{"order.paid": PAID})
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        done = kilo("check", f"--against={ref}", cwd=tmp_path)
        assert done.returncode == 2
        assert "git knows no such commit" in done.stderr
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"kinds": 1}', '{"kinds": {"a": 1}}', "[" * 100_000])
    def test_a_record_that_is_none_is_said(self, text: str, tmp_path: Path) -> None:
        place = folder(tmp_path / "events", **{"order.paid": PAID})
        (place / "recorded.lock").write_text(text)
        done = kilo("check", cwd=tmp_path)
        assert done.returncode == 2
        assert "recorded.lock" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_file_that_was_no_text_at_a_commit_is_said(self, tmp_path: Path) -> None:
        git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com"]
        place = folder(tmp_path / "events", **{"order.paid": PAID})
        right = (place / "order.paid.json").read_bytes()
        (place / "order.paid.json").write_bytes(right.replace(b"paid.", b"\xe9."))
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
            subprocess.run([*git, *arguments], check=True)
        (place / "order.paid.json").write_bytes(right)
        done = kilo("check", "--against", "HEAD", cwd=tmp_path)
        assert done.returncode == 2
        assert "HEAD:events/order.paid.json: /description: holds half a surrogate pair" in done.stderr

    def test_a_record_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        place = folder(tmp_path / "events", **{"order.paid": PAID})
        (place / "recorded.new").mkdir()
        done = kilo("record", cwd=tmp_path)
        assert (done.returncode, "recorded.lock: can't be written (Is a directory)" in done.stderr) == (
            2,
            True,
        )

    def test_the_repositorys_own_events_are_recorded(self) -> None:
        done = kilo("check", "--json", cwd=Path(__file__).parents[3])
        assert json.loads(done.stdout)["changes"] == []
