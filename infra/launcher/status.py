"""What every part of a copy of the stack does right now."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from infra.launcher.errors import NotReadyError, SupervisorError
from infra.launcher.logs import last_error_line
from infra.launcher.model import Context, Part
from infra.launcher.parts.catalogue import all_parts
from infra.launcher.processes import tree_memory_bytes
from infra.launcher.secrets import peek_secrets
from infra.launcher.settings import StackSettings
from infra.launcher.supervision import ProcessState, Supervisor, log_file, running_supervisor

if TYPE_CHECKING:
    from rich.table import Table

GIB: Final = 1_073_741_824
MIB: Final = 1_048_576
PROBES_SIDE_BY_SIDE: Final = 8
ERROR_CHARS_SHOWN: Final = 60


class PartStatus(Struct, frozen=True):
    """One part. `state` is the supervisor's word, `ready` the probe's; memory is the process tree's PSS."""

    name: str
    title: str
    state: str
    ready: bool
    pid: int | None
    memory_mib: float
    address: str
    last_error: str | None
    log_file: str


class StackStatus(Struct, frozen=True):
    """All parts; `ready` when every one is."""

    state_dir: str
    port_base: int
    running: bool
    ready: bool
    memory_gib: float
    parts: tuple[PartStatus, ...]


def status_of(settings: StackSettings) -> StackStatus:
    """Ask the supervisor and every running part; a stack that was never started is all STOPPED, and nothing is made."""
    supervisor = running_supervisor(settings)
    states: dict[str, ProcessState] = {}
    if supervisor is not None:
        try:
            states = Supervisor(settings).states()
        except SupervisorError:
            # It lives but does not answer: then its parts are unknown, which the table shows.
            states = {}
    context = Context(settings=settings, secrets=peek_secrets(settings))
    parts = list(all_parts(context).values())
    with ThreadPoolExecutor(PROBES_SIDE_BY_SIDE) as pool:
        found = tuple(pool.map(lambda part: _part_status(context, part, states.get(part.name)), parts))
    own_mib = tree_memory_bytes(supervisor.pid) / MIB if supervisor is not None else 0.0
    return StackStatus(
        state_dir=str(settings.state_dir),
        port_base=settings.port_base,
        running=supervisor is not None,
        ready=all(part.ready for part in found),
        memory_gib=round(own_mib * MIB / GIB, 3),
        parts=found,
    )


def status_table(status: StackStatus) -> "Table":
    """Lay the status out for a terminal."""
    from rich.table import Table

    table = Table(title=f"{status.state_dir}  ports from {status.port_base}", title_justify="left")
    for heading in ("part", "state", "ready", "pid"):
        table.add_column(heading, no_wrap=True)
    table.add_column("MiB", justify="right", no_wrap=True)
    table.add_column("address", overflow="fold")
    table.add_column("last log error", overflow="fold")
    for part in status.parts:
        table.add_row(
            part.name,
            part.state,
            "yes" if part.ready else "no",
            str(part.pid or ""),
            f"{part.memory_mib:.0f}",
            part.address,
            (part.last_error or "")[:ERROR_CHARS_SHOWN],
        )
    table.caption = f"memory of the whole stack: {status.memory_gib:.2f} GiB"
    return table


def _part_status(context: Context, part: Part, process: ProcessState | None) -> PartStatus:
    path = log_file(context.settings, part.name)
    pid = process.pid if process is not None and process.pid else None
    return PartStatus(
        name=part.name,
        title=part.title,
        state=process.state if process is not None else "STOPPED",
        ready=pid is not None and _is_ready(context, part),
        pid=pid,
        memory_mib=round(tree_memory_bytes(pid) / MIB, 1) if pid is not None else 0.0,
        address=part.address,
        last_error=last_error_line(path),
        log_file=str(path),
    )


def _is_ready(context: Context, part: Part) -> bool:
    try:
        part.probe(context)
    except NotReadyError:
        return False
    return True
