"""Updates as those who write services meet them: conflicts, removals, renames, hostile answers, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kilo.errors import BadInput, CheckFailed
from kilo.scaffold import updating
from kilo.scaffold.template import ANSWERS, load
from kilo.scaffold.updating import Updated, update
from tests.patience import until
from tests.runtime.scaffold.variants import commit, make, template_repository

KILO = Path(sys.executable).parent / "kilo"
RUNBOOK = "docs/runbook.md"


def git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", where, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


class Pair:
    """A template, and a service that was made from its first version."""

    def __init__(self, directory: Path, inside: Path | None = None) -> None:
        self.template = template_repository(directory / "platform")
        self.service = make("job-plain", self.template, inside or directory)
        commit(inside or self.service, "made")

    def learn(self, name: str, change: Callable[[str], str] | None, tag: str = "v0.2.0") -> None:
        """Change a file of the template, add it, or (without a change) remove it."""
        path = self.template / "templates" / "service" / name
        if change is None:
            path.unlink()
        else:
            path.write_text(change(path.read_text() if path.exists() else ""))
        commit(self.template, "theirs", tag=tag)

    def write(self, name: str, text: str) -> None:
        (self.service / name).write_text(text)
        commit(self.service, "ours")

    def update(self, **answers: object) -> Updated:
        return update(load(self.service), None, answers)

    def status(self) -> str:
        # Without git's lock, which an update that goes on meanwhile may want.
        return git(self.service, "--no-optional-locks", "status", "--porcelain", "--", ".")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def kept_by(text: str) -> str:
    return text.replace("Run by the team", "Kept by the team")


def more(text: str) -> str:
    return f"{text}\nmore\n"


def test_what_is_no_repository_or_not_committed_is_not_risked(tmp_path: Path) -> None:
    template = template_repository(tmp_path / "platform")
    service = make("job-plain", template, tmp_path)
    with pytest.raises(BadInput, match="git init"):
        update(load(service), None, {})
    commit(service, "made")
    for change in (lambda: (service / "mine").write_text("mine"), lambda: git(service, "add", "mine")):
        change()
        with pytest.raises(BadInput, match="not committed"):
            update(load(service), None, {})
    assert (service / "mine").read_text() == "mine"


def test_answers_that_are_no_answers_are_said(pair: Pair) -> None:
    for text, reason in (("[", "not YAML"), ("- a", "not a mapping|missing"), ("name: a", "_commit")):
        (pair.service / ANSWERS).write_text(text)
        with pytest.raises(BadInput, match=reason):
            load(pair.service)


def test_twice_is_once(pair: Pair) -> None:
    pair.learn("README.md.jinja", kept_by)
    pair.write("MINE.md", "mine")
    assert pair.update() == Updated((ANSWERS, "README.md"), ())
    with pytest.raises(BadInput, match="not committed"):
        pair.update()
    commit(pair.service, "updated")
    assert pair.update() == Updated((), ())
    assert (pair.service / "MINE.md").read_text() == "mine"


def test_what_both_changed_is_named_fails_and_is_undone_as_it_says(pair: Pair) -> None:
    pair.write("README.md", "Ours.\n")
    pair.learn("NEW.md", more)
    pair.learn("README.md.jinja", kept_by, tag="v0.3.0")
    with pytest.raises(CheckFailed, match=r"changed README\.md; solve") as caught:
        pair.update()
    assert "<<<<<<<" in (pair.service / "README.md").read_text()
    undo = str(caught.value).splitlines()[-1].partition("to undo the update: ")[2]
    subprocess.run(["bash", "-ec", undo], check=True)
    assert (pair.status(), (pair.service / "README.md").read_text()) == ("", "Ours.\n")
    assert not (pair.service / "NEW.md").exists()


def test_a_file_that_both_made_is_a_conflict(pair: Pair) -> None:
    pair.write("NOTES.md", "mine\n")
    pair.learn("NOTES.md", lambda _: "theirs\n")
    with pytest.raises(CheckFailed, match=r"NOTES\.md"):
        pair.update()


def test_what_the_template_removed_and_the_service_changed_is_kept_and_said(pair: Pair) -> None:
    pair.write(RUNBOOK, "Ours.\n")
    pair.learn(f"{RUNBOOK}.jinja", None)
    with pytest.raises(CheckFailed, match=rf"no longer has {RUNBOOK}, which the service changed; kept"):
        pair.update()
    assert (pair.service / RUNBOOK).read_text() == "Ours.\n"


def test_what_the_template_removed_and_nobody_changed_goes(pair: Pair) -> None:
    pair.learn(f"{RUNBOOK}.jinja", None)
    assert pair.update() == Updated((ANSWERS, RUNBOOK), ())
    assert not (pair.service / RUNBOOK).exists()


def test_what_the_service_removed_stays_away_and_the_templates_change_is_named(pair: Pair) -> None:
    (pair.service / RUNBOOK).unlink()
    commit(pair.service, "without")
    pair.learn(f"{RUNBOOK}.jinja", more)
    assert pair.update() == Updated((ANSWERS,), (RUNBOOK,))
    assert not (pair.service / RUNBOOK).exists()


def test_a_package_that_was_renamed_is_told_what_it_does_not_get(pair: Pair) -> None:
    git(pair.service, "mv", "src/job_plain_service", "src/mine")
    commit(pair.service, "renamed")
    pair.learn("src/[[ package ]]/[% if is_job %]job.py[% endif %].jinja", more)
    done = subprocess.run([KILO, "svc", "update", pair.service], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out: what the template changed in src/job_plain_service/job.py" in done.stdout
    assert not (pair.service / "src" / "job_plain_service").exists()


def test_names_are_as_they_are_and_from_the_service(tmp_path: Path) -> None:
    inside = tmp_path / "all services"
    inside.mkdir()
    pair = Pair(tmp_path, inside)
    (inside / "other").write_text("somebody is at work beside it")
    pair.learn("wörd file.md", more)
    assert pair.update() == Updated((ANSWERS, "wörd file.md"), ())
    assert git(inside, "status", "--porcelain", "--", "other") == "?? other\n"


@pytest.mark.parametrize("what", ["file", "directory"])
def test_nothing_is_written_through_a_link_that_leads_out(what: str, pair: Pair, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "runbook.md").write_text("precious")
    (pair.service / RUNBOOK).unlink()
    if what == "file":
        (pair.service / RUNBOOK).symlink_to(outside / "runbook.md")
    else:
        (pair.service / "docs").rmdir()
        (pair.service / "docs").symlink_to(outside)
    commit(pair.service, "linked")
    pair.learn(f"{RUNBOOK}.jinja", more)
    with pytest.raises(BadInput, match="a link that leads out of the service"):
        pair.update()
    assert (outside / "runbook.md").read_text() == "precious"
    assert pair.status() == ""


def test_a_link_within_the_service_gets_nothing_and_that_is_said(pair: Pair) -> None:
    (pair.service / RUNBOOK).rename(pair.service / "docs" / "other.md")
    (pair.service / RUNBOOK).symlink_to("other.md")
    commit(pair.service, "linked")
    pair.learn(f"{RUNBOOK}.jinja", more)
    assert pair.update() == Updated((ANSWERS,), (RUNBOOK,))


class TestHostileAnswers:
    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("_src_path", "ext::sh -c touch% {pwned}", "_src_path: no git repository"),
            ("_src_path", "--upload-pack=touch {pwned}", "_src_path: no git repository"),
            ("_src_path", "/nowhere", "_src_path: no git repository"),
            ("_commit", "--orphan=x", "_commit: --orphan=x: the template at .* has no such version"),
            ("_commit", "$(touch {pwned})", "the template at .* has no such version"),
            ("_commit", "v9.9.9", "name the one that the service is nearest to"),
            ("name", "../../evil", "name"),
            ("name", "class Evil", "name"),
        ],
    )
    def test_what_is_none_is_refused_with_its_place(
        self, name: str, value: str, reason: str, pair: Pair, tmp_path: Path
    ) -> None:
        pwned = tmp_path / "pwned"
        self._answer(pair, name, value.format(pwned=pwned))
        pair.learn("README.md.jinja", kept_by)
        with pytest.raises(BadInput, match=reason):
            pair.update()
        assert pair.status() == ""
        assert not pwned.exists()

    def test_another_template_takes_a_word(self, pair: Pair, tmp_path: Path) -> None:
        evil = template_repository(tmp_path / "evil")
        (evil / "templates" / "service" / "Makefile.jinja").write_text("test:\n\ttouch /tmp/pwned\n")
        commit(evil, "evil", tag="v0.3.0")
        self._answer(pair, "_src_path", str(evil))
        with pytest.raises(
            BadInput, match=f"_src_path: {evil}, but the service was made from {pair.template}"
        ):
            pair.update()
        assert pair.status() == ""
        # Who means it says so.
        done = update(load(pair.service), None, {}, str(evil))
        assert "Makefile" in done.changed

    def test_a_template_that_would_run_something_is_refused_and_leaves_nothing(self, pair: Pair) -> None:
        questions = pair.template / "copier.yml"
        questions.write_text(
            f"{questions.read_text()}\n_tasks: ['touch pwned']\n_migrations: ['touch pwned']\n"
        )
        commit(pair.template, "hostile", tag="v0.2.0")
        with pytest.raises(BadInput, match="--template"):
            pair.update()
        assert pair.status() == ""
        assert not (pair.service / "pwned").exists()

    @staticmethod
    def _answer(pair: Pair, name: str, value: str) -> None:
        path = pair.service / ANSWERS
        lines = path.read_text().splitlines()
        changed = [f"{name}: '{value}'" if line.startswith(f"{name}:") else line for line in lines]
        pair.write(ANSWERS, "\n".join(changed) + "\n")


class TestInterrupted:
    def test_what_fails_in_the_middle_is_taken_back(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair.learn("NEW.md", more)
        pair.learn("README.md.jinja", kept_by, tag="v0.3.0")
        real = updating.run_update

        def dies(*arguments: object, **named: object) -> None:
            real(*arguments, **named)  # pyright: ignore[reportArgumentType]
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(updating, "run_update", dies)
            with pytest.raises(KeyboardInterrupt):
                pair.update()
        assert pair.status() == ""
        assert set(pair.update().changed) == {ANSWERS, "NEW.md", "README.md"}

    def test_what_a_kill_left_is_told_with_what_undoes_it(self, pair: Pair) -> None:
        for number in range(40):
            pair.template.joinpath("templates", "service", f"NEW{number}.md").write_text("new")
        commit(pair.template, "theirs", tag="v0.2.0")
        process = subprocess.Popen(
            [KILO, "svc", "update", pair.service], stdout=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: pair.status() != "" or process.poll() is not None)
        assert process.poll() is None, "it was over before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(CheckFailed, match="an update was killed and left half of it") as caught:
            pair.update()
        undo = str(caught.value).partition("to undo it: ")[2]
        subprocess.run(["bash", "-ec", undo], check=True)
        assert len(pair.update().changed) == 41
        commit(pair.service, "updated")
        # And its mark is gone: what is written now is somebody's own.
        (pair.service / "mine").write_text("mine")
        with pytest.raises(BadInput, match="commit or stash them first"):
            pair.update()

    def test_there_is_one_at_a_time(self, pair: Pair) -> None:
        pair.learn("README.md.jinja", kept_by)
        with updating._alone(pair.service), pytest.raises(CheckFailed, match="another update is under way"):  # pyright: ignore[reportPrivateUsage]
            pair.update()
        assert pair.update().changed

    def test_as_json_it_says_what_changed_and_what_did_not_arrive(self, pair: Pair) -> None:
        (pair.service / RUNBOOK).unlink()
        commit(pair.service, "without")
        pair.learn(f"{RUNBOOK}.jinja", more)
        done = subprocess.run(
            [KILO, "svc", "update", pair.service, "--json"], capture_output=True, text=True, check=False
        )
        assert json.loads(done.stdout) == {
            "name": "job-plain-service",
            "from": "v0.1.0",
            "to": "v0.2.0",
            "changed": [ANSWERS],
            "left_out": [RUNBOOK],
        }
