"""``mobilesam doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mobilesam_cli.completion import installed_for
from mobilesam_cli.options import Json

if TYPE_CHECKING:
    from mobilesam_core.doctor.workflow import Check, Diagnosis

_MARKS = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[bold red]✗[/]"}


def doctor(json: Json = False) -> None:
    """Look at this installation and machine: versions, devices, weights, space, and what is missing for which command.

    Takes a few seconds. Exit code 1 if something essential does not work.

    [bold]Examples[/]

      mobilesam doctor

      mobilesam doctor --json | jq '.sections.Computing'
    """
    from mobilesam_cli.console import print_json
    from mobilesam_core.doctor.workflow import diagnose

    found = diagnose(_completion())
    if json:
        print_json(found.to_json())
    else:
        _show(found)
    if found.problems:
        raise typer.Exit(1)


def _completion() -> Check:
    from mobilesam_core.doctor.workflow import Check

    shell, installed = installed_for()
    if installed:
        return Check("completion", f"installed for {shell}")
    state = f"cannot be told for the shell {shell}" if installed is None else f"not installed for {shell}"
    return Check("completion", state, "note", "mobilesam --install-completion")


def _show(found: Diagnosis) -> None:
    from rich.markup import escape

    from mobilesam_cli.console import stdout

    width = max(len(check.name) for checks in found.sections.values() for check in checks)
    for section, checks in found.sections.items():
        stdout().print(f"[bold]{section}[/]")
        for check in checks:
            line = f"  {_MARKS[check.state]} {escape(check.name):{width}}  {escape(check.value)}"
            stdout().print(line, soft_wrap=True, emoji=False)
            if check.remedy:
                stdout().print(f"    {'':{width}}  [bold]→[/] {escape(check.remedy)}", soft_wrap=True, emoji=False)
    stdout().print(
        "Everything essential works." if not found.problems else f"[bold red]{found.problems} problem(s).[/]"
    )
