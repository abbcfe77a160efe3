"""A job in a process of its own: `python -m MODULE FILE`, FILE being the job in JSON.

What it writes: when it begins (Unix s) as its first line, where it says so, and what it has done as its last.
"""

import subprocess
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from benchmarks.lake.ground import Ground
from contracts.errors import OperatorMustActError
from infra.launcher.supervision import base_environment
from infra.setup.paths import lake_python

SAID_CHARS_MAX: Final = 2_000  # characters of what a process said that go into an error

Done = TypeVar("Done", bound=Struct)


class JobProcess:
    """Starts at once; `name` tells one job from others of its module on the same ground."""

    def __init__(self, ground: Ground, module: str, name: str, job: Struct) -> None:
        self._who = f"{module} {name}"
        path = ground.folder / f"{module}.{name}.job.json"
        path.write_bytes(msgspec.json.encode(job))
        self._process = subprocess.Popen(
            [str(lake_python()), "-m", module, str(path)],
            env=base_environment(ground.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def first_number(self) -> float:
        """Return the number in its first line. Raises OperatorMustActError when it ends before."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._raise()
        return float(line)

    def done(self, kind: type[Done]) -> Done:
        """Wait for its end and return what it did. Raises OperatorMustActError with what it said when it failed."""
        out, _ = self._process.communicate()
        if self._process.returncode != 0:
            self._raise()
        return msgspec.json.decode(out.splitlines()[-1], type=kind)

    def kill(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _raise(self) -> None:
        _, said = self._process.communicate()
        tail = said.decode(errors="replace")[-SAID_CHARS_MAX:]
        raise OperatorMustActError(f"{self._who}: ended with exit code {self._process.returncode}: {tail}")
