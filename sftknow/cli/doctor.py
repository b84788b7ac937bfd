"""`sftknow doctor`: how this installation stands."""

import click

from sftknow.cli.common import CONTEXT, examples


@examples("sftknow doctor")
@click.command(context_settings=CONTEXT)
def command() -> int:
    """Check versions, whether lm-eval sees the tasks, what is missing and how to get it.

    Exit code 1 where something is wrong that keeps a command from working.
    """
    from sftknow.diagnosis import diagnose

    findings = diagnose()
    for finding in findings:
        click.echo(f"{finding.state:<8} {finding.subject:<16} {finding.detail}")
        if finding.remedy:
            click.echo(f"{'':25} -> {finding.remedy}")
    return int(any(finding.state == "problem" for finding in findings))
