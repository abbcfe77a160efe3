"""The command `fieldlake`."""

from infra.cli.main import main

__all__ = ["main"]
