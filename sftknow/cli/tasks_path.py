"""`sftknow tasks-path`: the folder to give lm-eval as --include_path."""

import click

from sftknow.cli.common import CONTEXT, examples


@examples('lm_eval --include_path "$(sftknow tasks-path)" --tasks cbqa_mastery --metadata mastery=FOLDER ...')
@click.command(context_settings=CONTEXT)
def command() -> None:
    """Print the folder of the task YAMLs, for an lm-eval that does not list them by itself.

    `sftknow doctor` tells whether it is needed.
    """
    from sftknow.harness import tasks_folder

    click.echo(tasks_folder())
