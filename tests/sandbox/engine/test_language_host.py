"""Our own language host behaves as the official one does."""

from __future__ import annotations

import signal
import subprocess
import time

from tests.sandbox.support import STACK, Project


def test_a_program_runs_in_its_own_folder_with_its_own_modules(project: Project) -> None:
    project.program("""
        import sys
        import beside
        pulumi.export("directory", os.path.basename(os.getcwd()))
        pulumi.export("name", __name__)
        pulumi.export("beside", beside.WORD)
        pulumi.export("arguments", sys.argv[1:])
        pulumi.export("leaked", [path for path in sys.path if path.endswith(("sandbox", "sandbox/engine"))])
        pulumi.export("root", os.path.basename(os.path.dirname(os.getcwd())) != "")
    """)
    (project.directory / "program" / "beside.py").write_text("WORD = 'found'")
    project.up()
    assert project.outputs() == {
        "directory": "program",
        "name": "__main__",
        "beside": "found",
        "arguments": [],
        "leaked": [],
        "root": True,
    }


def test_a_program_sees_its_stack_and_its_configuration(project: Project) -> None:
    project.run("config", "set", "--stack", STACK, "word", "plain")
    project.run("config", "set", "--stack", STACK, "--secret", "hidden", "correct horse")
    project.program("""
        config = pulumi.Config()
        pulumi.export("word", config.require("word"))
        pulumi.export("hidden", config.require_secret("hidden"))
        pulumi.export("identity", [pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization()])
        pulumi.export("dry", pulumi.runtime.is_dry_run())
        pulumi.export("leaked", [n for n, v in os.environ.items() if "correct horse" in v])
    """)
    project.up()
    outputs = project.outputs()
    assert outputs["word"] == "plain"
    assert outputs["hidden"] == "correct horse"
    assert outputs["identity"] == ["trial", STACK, "organization"]
    assert outputs["dry"] is False
    assert outputs["leaked"] == []
    shown = project.run("stack", "output", "--stack", STACK, "--json").stdout
    assert "correct horse" not in shown


def test_a_programs_mistake_is_shown_once_and_with_its_place(project: Project) -> None:
    said = project.preview("def broken():\n    return {}['missing']\nbroken()\n", code=None)
    assert said.code != 0
    assert said.messages.count("KeyError: 'missing'") == 1
    assert "program/__main__.py" in said.messages or "__main__.py" in said.messages


def test_an_error_meant_for_the_user_comes_without_a_traceback(project: Project) -> None:
    said = project.preview("raise pulumi.RunError('the stage has no tenants')", code=None)
    assert said.code != 0
    assert "the stage has no tenants" in said.messages
    assert "Traceback" not in said.messages


def test_a_program_that_exits_fails_the_update(project: Project) -> None:
    said = project.preview("import sys\nsys.exit(3)", code=None)
    assert said.code != 0
    assert "exit code: 3" in said.messages


def test_a_missing_virtual_environment_is_said(project: Project) -> None:
    project.program("")
    file = project.directory / "Pulumi.yaml"
    file.write_text(file.read_text().replace('"virtualenv": "', '"virtualenv": "/nowhere'))
    said = project.preview(code=None)
    assert said.code != 0
    assert "is not a virtual environment" in said.messages


def test_a_policy_pack_runs_and_stops_an_update(project: Project) -> None:
    pack = project.directory / "policies"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("description: rules\nruntime: python\n")
    (pack / "__main__.py").write_text(
        "from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy\n"
        "def long(args, report):\n"
        "    if args.resource_type.endswith('RandomString') and args.props['length'] < 20:\n"
        "        report(f\"length is {int(args.props['length'])}, and 20 is the least\")\n"
        "PolicyPack('rules', enforcement_level=EnforcementLevel.MANDATORY, policies=[\n"
        "    ResourceValidationPolicy('long-enough', 'Strings are long.', long)])\n"
    )
    project.head = "import pulumi_random as random"
    said = project.preview("random.RandomString('s', length=8)", "--policy-pack", str(pack), code=None)
    assert said.code != 0
    assert "length is 8, and 20 is the least" in str(said.events) + said.errors
    project.preview("random.RandomString('s', length=24)", "--policy-pack", str(pack))


def test_an_interrupted_program_ends_with_the_engine(project: Project) -> None:
    project.program("""
        import time
        open("started", "w").write(str(os.getpid()))
        time.sleep(60)
    """)
    started = project.directory / "program" / "started"
    process = subprocess.Popen(
        ["pulumi", "preview", "--stack", STACK, "--non-interactive"],
        cwd=project.directory,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not started.exists() or not started.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    program = int(started.read_text())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert "Traceback" not in output
    assert not _runs(program)


def _runs(pid: int) -> bool:
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().split()[2] == "Z":
                    return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True


def test_the_engine_says_nothing_of_where_its_plugins_are(project: Project) -> None:
    project.up('import pulumi_random as random\nrandom.RandomString("one", length=3)\n')
    done = project.run("preview", "--stack", STACK, "--non-interactive")
    said = done.stdout + done.stderr
    assert "2 unchanged" in said
    assert "warning" not in said
    assert "$PATH" not in said
