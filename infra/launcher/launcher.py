"""Starting and stopping one copy of the stack.

`Launcher.up` works in this order:

1. lock        one launcher at a time works on a state folder.
2. leftovers   processes of a crashed supervisor are ended: nobody restarts them, and they hold our ports.
3. ports       a port held by somebody else is refused before anything starts.
4. files       secrets, certificates, rendered configuration, endpoints.
5. supervisor  started, or told of the changed configuration.
6. parts       each as soon as everything it needs is ready, side by side.

When a part fails, or the caller is interrupted, everything this call has started is stopped again.
"""

import contextlib
import fcntl
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final

from infra.launcher import graph
from infra.launcher.accounts import SERVICE_ACCOUNT, ensure_account, is_root
from infra.launcher.certificates import ensure_certificates
from infra.launcher.endpoints import write_endpoints
from infra.launcher.errors import (
    LauncherBusyError,
    NotReadyError,
    PartFailedError,
    SupervisorError,
    UnknownPartError,
)
from infra.launcher.files import write_file
from infra.launcher.logs import last_error_line
from infra.launcher.model import Context, Part
from infra.launcher.parts.catalogue import all_parts
from infra.launcher.ports import find_clashes, refuse_clashes
from infra.launcher.processes import end_all, left_over
from infra.launcher.secrets import load_secrets, peek_secrets
from infra.launcher.settings import StackSettings
from infra.launcher.supervision import (
    Supervisor,
    log_file,
    pid_file,
    render_config,
    running_supervisor,
    start_supervisor,
    write_config,
)

PROBE_PAUSE_S: Final = 0.2  # between two probes: small against a start, large against a probe's own cost
TRIES_MAX: Final = 3  # crashes of a part at start before `up` gives up; a real error does not go away by the third
SUPERVISOR_ANSWER_S: Final = 15.0
TERM_WAIT_S: Final = 20.0  # for the supervisor (which ends its children) and for leftovers, before SIGKILL
PARTS_SIDE_BY_SIDE_MAX: Final = 32  # threads that mostly wait; more than there are parts

Progress = Callable[[str, str], None]  # (part, what happened)


class Launcher:
    """One copy of the stack, named by its settings."""

    def __init__(self, settings: StackSettings, progress: Progress | None = None) -> None:
        self.settings = settings
        self._progress: Progress = progress or (lambda _part, _text: None)
        self._stop_asked = threading.Event()

    def context(self) -> Context:
        """Return settings and secrets; draws the secrets at the first call."""
        return Context(settings=self.settings, secrets=load_secrets(self.settings))

    def _known_context(self) -> Context:
        return Context(settings=self.settings, secrets=peek_secrets(self.settings))

    def up(self, only: Iterable[str] | None = None) -> None:
        """Start the parts (and all they need), and return when every one is ready; parts that run are left alone."""
        with self._locked():
            self._make_folders()
            if is_root():
                ensure_account(SERVICE_ACCOUNT)
            supervisor_ran = running_supervisor(self.settings) is not None
            if not supervisor_ran:
                self._end_leftovers()
            ensure_certificates(self.settings)
            context = self.context()
            write_endpoints(context)
            parts = all_parts(context)
            together = graph.closure(
                {name: (*part.needs, *part.beside) for name, part in parts.items()}, parts if only is None else only
            )
            wanted = {name: parts[name].needs for name in together}
            begun: list[str] = []
            try:
                self._ensure_supervisor(parts, [parts[name] for name in wanted], supervisor_ran)
                self._start_parts(context, parts, wanted, begun)
            except BaseException:
                with _deaf_to_interrupts():
                    self._undo(begun, keep_supervisor=supervisor_ran)
                raise

    def down(self) -> None:
        """Stop everything of this copy, whether or not its supervisor still lives, and return when all is gone."""
        if not self.settings.state_dir.exists():
            self._end_leftovers()
            return
        with self._locked():
            self._down()

    def restart(self, name: str) -> None:
        """Stop one part, start it again, and return when it is ready."""
        context = self._known_context()
        parts = all_parts(context)
        if name not in parts:
            raise UnknownPartError(f"part {name!r}: expected one of {', '.join(sorted(parts))}")
        if running_supervisor(self.settings) is None:
            raise SupervisorError(
                f"{self.settings.state_dir}: expected a running stack, found none; run `fieldlake up`"
            )
        with self._locked():
            supervisor = Supervisor(self.settings)
            supervisor.stop(name)
            self._start_part(context, parts[name], supervisor)

    def _start_parts(
        self, context: Context, parts: dict[str, Part], wanted: dict[str, tuple[str, ...]], begun: list[str]
    ) -> None:
        supervisor = Supervisor(self.settings)
        running = {name for name, state in supervisor.states().items() if state.state == "RUNNING"}
        ready: set[str] = set()
        taken: set[str] = set()
        futures: dict[Future[None], str] = {}
        with ThreadPoolExecutor(PARTS_SIDE_BY_SIDE_MAX, thread_name_prefix="start") as pool:
            try:
                while len(ready) < len(wanted):
                    for name in graph.startable(wanted, ready, taken):
                        taken.add(name)
                        if name not in running:
                            begun.append(name)
                        futures[pool.submit(self._start_part, context, parts[name], supervisor)] = name
                    done, _ = wait(futures, return_when=FIRST_COMPLETED)
                    for future in done:
                        name = futures.pop(future)
                        future.result()
                        ready.add(name)
            except BaseException:
                self._stop_asked.set()
                raise

    def _start_part(self, context: Context, part: Part, supervisor: Supervisor) -> None:
        began_s = time.monotonic()
        self._progress(part.name, "starting")
        for file in part.files:
            write_file(file.path, file.text.encode())
        for folder in part.owned:
            folder.mkdir(parents=True, exist_ok=True)
        part.prepare(context)
        supervisor.start(part.name)
        self._await_ready(context, part, supervisor, began_s)
        part.provision(context)
        self._progress(part.name, f"ready after {time.monotonic() - began_s:.1f} s")

    def _await_ready(self, context: Context, part: Part, supervisor: Supervisor, began_s: float) -> None:
        tries: set[int] = set()
        while not self._stop_asked.is_set():
            try:
                return part.probe(context)
            except NotReadyError as error:
                reason = str(error)
            state = supervisor.states()[part.name]
            if state.state in ("BACKOFF", "FATAL", "EXITED"):
                tries.add(state.started_at_s)
            if state.state == "FATAL" or len(tries) >= TRIES_MAX:
                raise self._failure(part, f"its process ended {len(tries)} times at start")
            if time.monotonic() - began_s > part.ready_within_s:
                raise self._failure(part, f"not ready within {part.ready_within_s} s ({reason})")
            self._stop_asked.wait(PROBE_PAUSE_S)
        raise PartFailedError(f"{part.name}: start given up because another part failed")

    def _failure(self, part: Part, what: str) -> PartFailedError:
        path = log_file(self.settings, part.name)
        line = last_error_line(path) or "no error line"
        return PartFailedError(
            f"{part.name}: {what}; last error in {path}: {line}; fix it and run `fieldlake up` again"
        )

    def _ensure_supervisor(self, parts: dict[str, Part], wanted: Iterable[Part], runs: bool) -> None:
        supervisor = Supervisor(self.settings)
        running = {name for name, state in supervisor.states().items() if state.pid} if runs else set()
        refuse_clashes(self.settings, find_clashes(self.settings, [p for p in wanted if p.name not in running]))
        changed = write_config(self.settings, render_config(self.settings, parts.values()))
        if runs:
            if changed:
                supervisor.reload()
            return
        start_supervisor(self.settings)
        deadline_s = time.monotonic() + SUPERVISOR_ANSWER_S
        while not supervisor.answers():
            if time.monotonic() > deadline_s:
                raise SupervisorError(
                    f"supervisord does not answer within {SUPERVISOR_ANSWER_S} s; "
                    f"see {self.settings.logs_dir}/supervisord.log"
                )
            self._stop_asked.wait(PROBE_PAUSE_S)

    def _undo(self, begun: list[str], keep_supervisor: bool) -> None:
        self._progress("stack", "stopping what was started")
        if not keep_supervisor:
            self._down()
            return
        supervisor = Supervisor(self.settings)
        for name in reversed(begun):
            supervisor.stop(name)

    def _down(self) -> None:
        process = running_supervisor(self.settings)
        if process is not None:
            self._stop_parts_in_order()
            end_all([process], TERM_WAIT_S)
        self._end_leftovers()
        pid_file(self.settings).unlink(missing_ok=True)
        sockets = [socket for part in all_parts(self._known_context()).values() for socket in part.sockets]
        for socket in [*sockets, self.settings.socket_path("supervisor")]:
            socket.unlink(missing_ok=True)

    def _stop_parts_in_order(self) -> None:
        """Stop level by level, what needs others first, so that nobody loses what it still writes to."""
        supervisor = Supervisor(self.settings)
        try:
            alive = {name for name, state in supervisor.states().items() if state.pid or state.state == "BACKOFF"}
            parts = all_parts(self._known_context())
            with ThreadPoolExecutor(PARTS_SIDE_BY_SIDE_MAX, thread_name_prefix="stop") as pool:
                for level in reversed(graph.levels({name: part.needs for name, part in parts.items()})):
                    for future in [pool.submit(supervisor.stop, name) for name in level if name in alive]:
                        future.result()
                    self._progress(
                        "stack", f"stopped {', '.join(name for name in level if name in alive) or 'nothing'}"
                    )
        except SupervisorError as error:
            # The supervisor's end and the search for leftovers do the rest.
            self._progress("stack", str(error))

    def _end_leftovers(self) -> None:
        found = left_over(self.settings.instance)
        if not found:
            return
        self._progress("stack", f"ending {len(found)} processes of an earlier run")
        alive = end_all(found, TERM_WAIT_S)
        if alive:
            pids = ", ".join(str(process.pid) for process in alive)
            raise SupervisorError(f"processes {pids}: expected them gone after SIGKILL; end them by hand")

    def _make_folders(self) -> None:
        settings = self.settings
        folders = [settings.conf_dir, settings.data_dir, settings.logs_dir, settings.run_dir]
        for folder in [*folders, settings.socket_path("supervisor").parent]:
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.settings.run_dir.mkdir(parents=True, exist_ok=True)
        path = self.settings.run_dir / "launcher.lock"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LauncherBusyError(
                    f"{path}: another `fieldlake up` or `down` of this state folder runs; wait for it to end"
                ) from None
            yield


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let an impatient second Ctrl-C not leave half of the processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
