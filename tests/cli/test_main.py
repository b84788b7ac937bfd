"""The programs answer fast, explain themselves, and turn errors into one line and an exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sftknow import __version__
from sftknow.cli.main import COMMANDS

PROGRAM = [sys.executable, "-c", "from sftknow.cli.main import main; main()"]
RESTORE = [sys.executable, "-c", "from sftknow.cli.restore import main; main()"]


def run(*arguments: str, program: list[str] = PROGRAM) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("program", [PROGRAM, RESTORE])
def test_version_is_the_package_version(program: list[str]) -> None:
    done = run("--version", program=program)
    assert done.returncode == 0
    assert __version__ in done.stdout


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\nfrom click.testing import CliRunner\nfrom sftknow.cli.main import cli\n"
        "result = CliRunner().invoke(cli, ['--help'])\n"
        "heavy = [n for n in ('torch', 'transformers', 'trl', 'lm_eval', 'datasets', 'numpy') if n in sys.modules]\n"
        "print(json.dumps([result.exit_code, result.output, heavy]))"
    )
    exit_code, output, heavy = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert exit_code == 0
    assert heavy == []
    assert all(name in output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Examples:" in done.stdout or "Commands:" in done.stdout


def test_restore_has_help_with_examples() -> None:
    done = run("--help", program=RESTORE)
    assert done.returncode == 0, done.stderr
    assert "Examples:" in done.stdout


def test_an_unknown_command_is_refused() -> None:
    done = run("prob")
    assert done.returncode == 2
    assert "No such command 'prob'" in done.stderr


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run("report", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("--debug", "report", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_shell_completion_lists_the_commands() -> None:
    done = subprocess.run(
        PROGRAM,
        capture_output=True,
        text=True,
        timeout=120,
        env={"_SFTKNOW_COMPLETE": "bash_complete", "COMP_WORDS": "sftknow pro", "COMP_CWORD": "1", "PATH": ""},
    )
    assert "probe" in done.stdout
