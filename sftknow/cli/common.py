"""What both programs share: lazy subcommands, errors to exit codes, logging, help that shows examples."""

import importlib
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from sftknow import __version__
from sftknow.errors import SftknowError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}
FOLDER = click.Path(path_type=Path)


class LazyGroup(click.Group):
    """A group whose commands are imported only when called, so that --help answers at once."""

    def __init__(self, *args: Any, commands_in: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_in = commands_in

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the method, not of the alphabet."""
        return list(self._commands_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self._commands_in:
            return None
        module, _ = self._commands_in[cmd_name]
        command = importlib.import_module(f"sftknow.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._commands_in.items()])


def add_common_options(command: Any) -> Any:
    """Add --version, -v and --debug to a program's top command."""
    command = click.option("--debug", is_flag=True, help="Show a traceback with an error, and log everything.")(command)
    command = click.option("-v", "--verbose", is_flag=True, help="Log what is done, on stderr.")(command)
    return click.version_option(__version__, prog_name="sftknow")(command)


def set_up_logging(verbose: bool, debug: bool) -> None:
    """Send log lines to stderr: warnings by default, more on request."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("sftknow").setLevel(level)


AGAIN = "the same command goes on where it stopped"


def run(command: click.Command, program: str, *, interrupted: str = AGAIN) -> NoReturn:
    """Run a program: bad input is one line and exit code 2, a failure of ours exit code 1, Ctrl-C 130."""
    debug = "--debug" in sys.argv
    try:
        result = command.main(prog_name=program, standalone_mode=False)
    except click.exceptions.Abort:
        _end(f"interrupted; {interrupted}.", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SftknowError as error:
        _end(_text(error, debug), 2)
    except KeyboardInterrupt:
        _end(f"interrupted; {interrupted}.", 130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        hint = "" if debug else " This is a fault of sftknow; run again with --debug for a traceback to report."
        _end(f"{type(error).__name__}: {_text(error, debug)}{hint}", 1)
    sys.exit(result if isinstance(result, int) else 0)


def _text(error: Exception, debug: bool) -> str:
    return traceback.format_exc() if debug else " ".join(str(error).split())


def _end(text: str, code: int) -> NoReturn:
    print(f"sftknow: {text}", file=sys.stderr)
    sys.exit(code)


def examples(*lines: str) -> Callable[[Any], Any]:
    """Give a command an epilog of examples, each kept on its own line."""

    def attach(command: click.Command) -> click.Command:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
        return command

    return attach
