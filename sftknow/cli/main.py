"""The `sftknow` program: one subcommand for each step of the method."""

from typing import NoReturn

import click

from sftknow.cli.common import CONTEXT, LazyGroup, add_common_options, run, set_up_logging

COMMANDS = {
    "demo": ("demo", "The whole method on the embedded laboratory, with a report page."),
    "lab": ("lab", "Build the laboratory: a world of facts and a small model pretrained on it."),
    "probe": ("probe", "Base model + facts -> mastery table."),
    "compare-mastery": ("compare_mastery", "Agreement of two mastery tables."),
    "export": ("export", "Facts, or your own fine-tuning set, with their mastery, for any trainer."),
    "train": ("train", "Base model + mastery table -> tuned checkpoint."),
    "kl": ("kl", "Base + tuned + mastery table -> divergence."),
    "score": ("score", "Score a checkpoint with lm-eval, by mastery bucket."),
    "sweep": ("sweep", "Score a tuned model restored at several fractions, in memory."),
    "compare": ("compare", "Compare two scored models fact by fact."),
    "report": ("report", "Write the report of a demo: one page, figures, tables."),
    "tasks-path": ("tasks_path", "Print the folder to give lm-eval as --include_path."),
    "doctor": ("doctor", "Check the installation: versions, whether lm-eval sees the tasks, what is missing."),
}


@click.group(cls=LazyGroup, commands_in=COMMANDS, context_settings=CONTEXT)
@add_common_options
def cli(verbose: bool, debug: bool) -> None:
    """What did the base model know, what did fine-tuning do to it, and which updates should be undone?

    Each command is one step and leaves one artifact on disk; `sftknow COMMAND --help` shows examples. The restoration
    itself is a program of its own, `sftknow-restore`.

    Shell completion: eval "$(_SFTKNOW_COMPLETE=bash_source sftknow)", or zsh_source, fish_source.
    """
    set_up_logging(verbose, debug)


def main() -> NoReturn:
    """Run `sftknow`."""
    run(cli, "sftknow")
