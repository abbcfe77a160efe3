"""What a part of the stack is: its files, its command line, and the three actions around its start.

A part module renders values; the launcher writes, starts, probes and stops. The order for one part is
files -> `prepare` -> process -> `probe` until it returns -> `provision` -> ready.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from infra.launcher.certificates import CertificatePaths, certificate_paths
from infra.launcher.secrets import Secrets
from infra.launcher.settings import StackSettings


class Context(Struct, frozen=True):
    """All that a part module may read: the settings and secrets of one copy of the stack."""

    settings: StackSettings
    secrets: Secrets

    def certificate(self, name: str) -> CertificatePaths:
        """Return the paths of one identity's certificate."""
        return certificate_paths(self.settings, name)

    def conf(self, part: str) -> Path:
        """Folder of a part's rendered configuration."""
        return self.settings.conf_dir / part

    def data(self, part: str) -> Path:
        """Folder of a part's data."""
        return self.settings.data_dir / part


class ConfigFile(Struct, frozen=True):
    """One rendered file; written with mode 0600, since most hold a password."""

    path: Path
    text: str


Action = Callable[[Context], None]


def nothing(context: Context) -> None:
    """The action of a part that needs none."""


class Part(Struct, frozen=True):
    """One supervised process.

    `needs` must be ready before it starts; `beside` is of no use without, but may start later.
    `probe` raises NotReadyError until the part does its work. `prepare` runs before the process, `provision` once
    after the first successful probe; both must be repeatable. `user` is the account to run under when root starts the
    stack. `owned` are folders to be made if missing, `sockets` what may be left behind after its end. `stop_signal`
    and `stop_wait_s` are how to end it.
    """

    name: str
    title: str
    command: tuple[str, ...]
    address: str
    probe: Action
    needs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    environment: Mapping[str, str] = {}
    directory: Path | None = None
    ports: tuple[str, ...] = ()
    owned: tuple[Path, ...] = ()
    sockets: tuple[Path, ...] = ()
    user: str | None = None
    prepare: Action = nothing
    provision: Action = nothing
    stop_signal: str = "TERM"
    stop_wait_s: int = 15
    ready_within_s: int = 120
