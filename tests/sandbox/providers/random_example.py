"""The ``random`` provider: a password, which lies in the state alone."""

from __future__ import annotations

from tests.sandbox.providers.examples import Example, raw


def _program(body: str) -> str:
    return f"one = random.RandomString('one', {body})\npulumi.export('name', one.result)\n"


def example() -> Example:
    """Nothing is behind it."""
    return Example(
        head="import pulumi_random as random",
        create=_program("length=12"),
        update=None,
        updated={},
        replace=_program("length=13"),
        replaced={"length": "update-replace"},
        wrong=raw(
            "random:index/randomString:RandomString", {"length": "long", "keepers": {"a": 1}, "lowr": True}
        ),
        wrong_paths=("length", "keepers.a", "lowr"),
        unknown_type="random:index/randomSong:RandomSong",
        missing_type="random:index/randomShuffle:RandomShuffle",
        unknowns="""
            one = random.RandomInteger("one", min=1, max=9)
            two = random.RandomString("two", length=one.result)
            pulumi.export("two", two.result)
        """,
        secret="""
            word = pulumi.Output.secret("correct horse")
            one = random.RandomPassword("one", length=20, keepers={"word": word})
            pulumi.export("secret", one.keepers["word"])
        """,
        adopt=lambda: _program("length=9, opts=pulumi.ResourceOptions(import_='by-a-hand')"),
    )
