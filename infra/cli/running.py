"""The running copy of the stack that a command means."""

from pathlib import Path
from typing import TYPE_CHECKING

from infra.cli.options import settings_of

if TYPE_CHECKING:
    from infra.launcher.endpoints import Endpoints


def endpoints_for(state_dir: Path | None, port_base: int | None) -> "Endpoints":
    """Return its addresses; raises SettingsError when none was started from that state folder."""
    from infra.launcher.endpoints import endpoints_file, read_endpoints

    return read_endpoints(endpoints_file(settings_of(state_dir, port_base)))
