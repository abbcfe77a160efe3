"""Running a part's one-shot tool to its end, with its output kept for the error message."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from infra.launcher.errors import PartFailedError

TOOL_TIMEOUT_S: Final = 120  # seconds; the slowest (storage format, initdb) takes 5 on a busy machine


def run_tool(
    part: str, command: Sequence[str], environment: Mapping[str, str] | None = None, user: str | None = None
) -> str:
    """Run a tool and return its output; raises PartFailedError with its last line."""
    try:
        result = subprocess.run(
            list(command),
            env=dict(environment) if environment is not None else None,
            user=user,
            group=user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            start_new_session=True,
            timeout=TOOL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise PartFailedError(f"{part}: {command[0]} does not exist; run `make setup`") from None
    except subprocess.TimeoutExpired:
        raise PartFailedError(f"{part}: {command[0]} did not end within {TOOL_TIMEOUT_S} s") from None
    if result.returncode != 0:
        lines = result.stdout.strip().splitlines() or ["no output"]
        raise PartFailedError(f"{part}: {command[0]} ended with {result.returncode}: {lines[-1]}")
    return result.stdout
