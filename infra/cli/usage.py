"""What to answer to a command that cannot be understood."""

import typer
from typer.core import TyperGroup


def what_was_expected(error: typer.TyperException) -> str:
    """Return one line: what was found, what was expected, and where the example is."""
    found = " ".join(error.format_message().split()).rstrip(".")
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is None:
        return found
    command = context.command
    if isinstance(command, TyperGroup) and found.startswith(("No such command", "Missing command")):
        found += f"; expected one of {', '.join(command.list_commands(context))}"
    return f"{found}; see `{context.command_path} --help`"
