"""The process supervisor: its configuration, its start, and its remote interface over a UNIX socket."""

import contextlib
import http.client
import os
import shlex
import socket
import subprocess
import xmlrpc.client
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
from msgspec import Struct

from infra.launcher.accounts import is_root
from infra.launcher.errors import PartFailedError, SupervisorError
from infra.launcher.files import write_file
from infra.launcher.model import Part
from infra.launcher.settings import StackSettings
from infra.setup.paths import lake_env, repo_root

LOG_BYTES_MAX: Final = 20 * 1_048_576  # per log file; with one backup, all logs of the stack stay below 1 GB
LOG_BACKUPS: Final = 1
START_SECS: Final = 2  # seconds a process must live before its end counts as a crash of a running part
# After a crash at start supervisor waits 1, 2, 3 ... s before the next try: 30 tries cover 7 minutes.
START_RETRIES: Final = 30
RPC_TIMEOUT_S: Final = 30.0
SUPERVISOR_START_TIMEOUT_S: Final = 20.0
MARKER_VARIABLE: Final = "FIELDLAKE_INSTANCE"  # every process of one copy carries the state folder's name in it

# Memory that is given back and taken again must be zeroed by the kernel: in a process that sorts some hundred megabytes
# every few seconds that was two thirds of its time. So Arrow and Python share one allocator, its threads share two
# arenas, and it keeps 256 MiB; a block from 32 MiB on, the most it allows, is always given back.
ALLOCATOR: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1_048_576),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1_048_576),
}

_FAULT_ALREADY_STARTED: Final = 60
_FAULT_NOT_RUNNING: Final = 70


class ProcessState(Struct, frozen=True):
    """What the supervisor says of one process; `started_at_s` changes with every new try."""

    name: str
    state: str  # STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN
    pid: int
    started_at_s: int


def base_environment(settings: StackSettings) -> dict[str, str]:
    """Return what every process of the stack sees: nothing of the caller's shell but its path and home."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPATH": str(repo_root()),
        "PYTHONUNBUFFERED": "1",
        **ALLOCATOR,
        MARKER_VARIABLE: settings.instance,
    }


def render_config(settings: StackSettings, parts: Iterable[Part]) -> str:
    """Render `supervisord.conf`: every part is a program, started only when asked, restarted when it dies."""
    supervisor = {
        "logfile": settings.logs_dir / "supervisord.log",
        "logfile_maxbytes": LOG_BYTES_MAX,
        "logfile_backups": LOG_BACKUPS,
        "pidfile": pid_file(settings),
        "nodaemon": "false",
        "identifier": settings.instance,
        "directory": "/",
        "childlogdir": settings.logs_dir,
        "umask": "077",
        **({"user": "root"} if is_root() else {}),
    }
    sections = [
        _section("unix_http_server", {"file": settings.socket_path("supervisor"), "chmod": "0700"}),
        _section("supervisord", supervisor),
        _section(
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        *(_section(f"program:{part.name}", _program(settings, part)) for part in parts),
    ]
    return "\n".join(sections)


def pid_file(settings: StackSettings) -> Path:
    """Return where the supervisor keeps its pid."""
    return settings.run_dir / "supervisord.pid"


def config_file(settings: StackSettings) -> Path:
    """Return where the supervisor's configuration lies."""
    return settings.conf_dir / "supervisord.conf"


def log_file(settings: StackSettings, part: str) -> Path:
    """Return the log of a part."""
    return settings.logs_dir / f"{part}.log"


def running_supervisor(settings: StackSettings) -> psutil.Process | None:
    """Return the live supervisor of this copy; a stale pid file, or a pid taken by another program, gives None."""
    try:
        process = psutil.Process(int(pid_file(settings).read_text()))
        ours = str(config_file(settings)) in process.cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return process if ours and process.status() != psutil.STATUS_ZOMBIE else None


def start_supervisor(settings: StackSettings) -> None:
    """Start the supervisor in its own session and return when it answers."""
    settings.socket_path("supervisor").unlink(missing_ok=True)
    command = [str(lake_env() / "bin" / "supervisord"), "-c", str(config_file(settings))]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=SUPERVISOR_START_TIMEOUT_S, start_new_session=True, env=base_environment(settings),
    )  # fmt: skip
    if result.returncode != 0:
        raise SupervisorError(f"supervisord did not start: {' '.join(result.stdout.split())}")


class Supervisor:
    """Client of one copy's supervisor. Every call opens its own connection, so threads may share one client."""

    def __init__(self, settings: StackSettings) -> None:
        self._path = settings.socket_path("supervisor")

    def answers(self) -> bool:
        """Say whether the supervisor takes calls."""
        try:
            with self._calls() as calls:
                calls.getState()
        except SupervisorError:
            return False
        return True

    def reload(self) -> None:
        """Take over the configuration file: programs that changed are stopped and known anew, others go on running."""
        with self._calls() as calls:
            ((added, changed, removed),) = calls.reloadConfig()
            for name in [*changed, *removed]:
                calls.stopProcessGroup(name)
                calls.removeProcessGroup(name)
            for name in [*added, *changed]:
                calls.addProcessGroup(name)

    def start(self, part: str) -> None:
        """Begin a part and return at once; a part that runs is left alone."""
        with self._calls() as calls, _tolerated(_FAULT_ALREADY_STARTED, part):
            calls.startProcess(part, False)

    def stop(self, part: str) -> None:
        """End a part and return when its process is gone; a part that does not run is left alone."""
        with self._calls() as calls, _tolerated(_FAULT_NOT_RUNNING, part):
            calls.stopProcess(part, True)

    def states(self) -> dict[str, ProcessState]:
        """Return every part the supervisor knows, by name."""
        with self._calls() as calls:
            return {
                info["name"]: ProcessState(info["name"], info["statename"], info["pid"], info["start"])
                for info in calls.getAllProcessInfo()
            }

    @contextlib.contextmanager
    def _calls(self) -> Iterator[Any]:
        try:
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(self._path)) as proxy:
                yield proxy.supervisor
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise SupervisorError(
                f"supervisord at {self._path} does not answer: {error}; run `fieldlake down`"
            ) from None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=RPC_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        self._connection = host, _UnixConnection(self._path)  # where the base class looks for what it must close
        return self._connection[1]


@contextlib.contextmanager
def _tolerated(code: int, part: str) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != code:
            raise PartFailedError(f"{part}: supervisord refused: {fault.faultString}") from None


def write_config(settings: StackSettings, text: str) -> bool:
    """Write the configuration; returns whether it differs from what was there."""
    path = config_file(settings)
    if path.exists() and path.read_text() == text:
        return False
    write_file(path, text.encode())
    return True


def _program(settings: StackSettings, part: Part) -> dict[str, object]:
    section: dict[str, object] = {
        "command": _escaped(shlex.join(part.command)),
        "directory": part.directory or settings.data_dir,
        "autostart": "false",
        "autorestart": "true",
        "startsecs": START_SECS,
        "startretries": START_RETRIES,
        "stopsignal": part.stop_signal,
        "stopwaitsecs": part.stop_wait_s,
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": log_file(settings, part.name),
        "stdout_logfile_maxbytes": LOG_BYTES_MAX,
        "stdout_logfile_backups": LOG_BACKUPS,
    }
    if part.environment:
        section["environment"] = _environment(part.environment)
    if part.user and is_root():
        section["user"] = part.user
    return section


def _environment(variables: Any) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in variables.items())


def _escaped(text: str) -> str:
    # supervisor expands %(...)s in values.
    return text.replace("%", "%%")


def _section(name: str, values: dict[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{key}={os.fspath(v) if isinstance(v, Path) else v}\n" for key, v in values.items())
