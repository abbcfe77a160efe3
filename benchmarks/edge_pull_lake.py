"""How long it takes to have ten minutes of raw data of a device in the lake. A part of the edge's figures.

1. start   a stack of its own, as `make demo` starts it, and one device that has ten minutes of readings at 1,000 a
           second in its ring, and goes on with live ones at that rate.
2. ask     for all events of these ten minutes, as `fieldlake pull` asks, and look through Trino until the answer and
           every one of its rows are there. The clock runs from before the request to the end of the look that shows
           them.
3. again   the same with other requests; the figure is the median.
"""

import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from benchmarks.device.workload import START_US, readings
from benchmarks.steady import free_port_base
from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from contracts.pulls import ID_BYTES, PullRequest
from edge_agent.config import AgentConfig, FileSource
from federation.config import TrinoConfig
from federation.trino import TrinoClient
from infra.cli.pulled import Following, Told
from infra.demo.material import make_material
from infra.fleet.agent import AgentProcess, Replay, prepare
from infra.fleet.pulls import desk
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.settings import StackSettings
from infra.provision import provision
from infra.setup.paths import shuttle_csv_gz
from onnx_models.dataset import read_sensor_record

DEVICE: Final = "press-01"
CONTRACT: Final = "telemetry"
EVENTS_PER_S: Final = 1_000
ASKED_S: Final = 600
LIVE_S: Final = 600  # of readings that are kept ready; the run ends before
WRITTEN_EVERY_S: Final = 0.1
PULLS: Final = 5
LOOKS_BEFORE: Final = 20  # of which the first ones teach Trino the query
LOOK_EVERY_S: Final = 0.5  # each look is two queries, which take their share of the same two cores
TAKEN_WITHIN_S: Final = 300.0
ANSWERED_WITHIN_S: Final = 120.0
MATERIAL_FRACTION: Final = 0.05  # of the demo's data sets: only its filter is needed
FLUSH_INTERVAL_MS: Final = 1_000

Measured = tuple[dict[str, float | None], Any]


def measure(progress: Callable[[str], None]) -> Measured:
    """Return `pull_s` with the way to the lake, and how it came about."""
    with TemporaryDirectory(prefix="fieldlake-pull-lake-") as name:
        folder = Path(name)
        settings = StackSettings(state_dir=folder / "state", port_base=free_port_base())
        launcher = Launcher(settings)
        try:
            progress("pull to the lake: starting a stack ...")
            launcher.up()
            material = make_material(folder / "material", MATERIAL_FRACTION)
            endpoints = read_endpoints(endpoints_file(settings))
            provision(endpoints, material.bundle, material.bundle_dir, material.datasets_dir / "crm")
            return _measured(endpoints, material.bundle.contract(CONTRACT), material.bundle_dir, folder, progress)
        finally:
            launcher.down()


def _measured(
    endpoints: Endpoints, contract: Contract, bundle_dir: Path, folder: Path, progress: Callable[[str], None]
) -> Measured:
    record = read_sensor_record(shuttle_csv_gz())
    lines = b"".join(readings(record, (ASKED_S + LIVE_S) * EVENTS_PER_S, 1, EVENTS_PER_S)).splitlines(keepends=True)
    file = folder / "readings.jsonl"
    asked = ASKED_S * EVENTS_PER_S
    file.write_bytes(b"".join(lines[:asked]))
    agent = AgentProcess(_followed(endpoints, bundle_dir, file))
    trino = endpoints.trino
    config = TrinoConfig(trino.host, trino.port, trino.ca_file, trino.analyst_user, trino.analyst_password)
    try:
        progress(f"pull to the lake: {asked} events into the ring ...")
        agent.start()
        _wait_for_events(agent, asked)
        with TrinoClient(config) as client, _live(file, lines[asked:]):
            pulls = [_pull(endpoints, contract, client, progress) for _ in range(PULLS)]
    finally:
        agent.terminate(10.0)
    seconds = [taken_s for taken_s, _ in pulls]
    how = {
        "asked": f"{ASKED_S} s of all {asked} events, while {EVENTS_PER_S} events/s arrive",
        "until": "Trino shows the answer and all of its rows",
        "stack": "as `make demo` starts it, on the same two cores",
        "seconds": [round(taken_s, 2) for taken_s in seconds],
        "rows": [told.rows for _, told in pulls],
    }
    return {"pull_s": round(statistics.median(seconds), 2)}, how


def _followed(endpoints: Endpoints, bundle_dir: Path, file: Path) -> Path:
    """Return the configuration of an agent that follows the file for as long as it runs."""
    path = prepare(endpoints, bundle_dir, Replay(DEVICE, CONTRACT, file, 0.0, FLUSH_INTERVAL_MS))
    config = msgspec.json.decode(path.read_bytes(), type=AgentConfig)
    source = FileSource("readings", str(file), CONTRACT, follow=True)
    path.write_bytes(msgspec.json.encode(replace(config, sources=(source,), until_drained=False)))
    return path


def _wait_for_events(agent: AgentProcess, events: int) -> None:
    deadline_s = time.monotonic() + TAKEN_WITHIN_S
    while True:
        sums = agent.status().get("streams", {}).get(CONTRACT, {})
        if sums.get("observed") == events and sums.get("committed_upto") == events:
            return
        if time.monotonic() > deadline_s:
            raise OperatorMustActError(f"pull to the lake: expected {events} events in it, found {sums}")
        time.sleep(WRITTEN_EVERY_S)


def _pull(
    endpoints: Endpoints, contract: Contract, client: TrinoClient, progress: Callable[[str], None]
) -> tuple[float, Told]:
    now_ms = round(time.time() * 1_000)
    until_us = START_US + ASKED_S * 1_000_000
    request = PullRequest(
        secrets.token_hex(ID_BYTES), CONTRACT, START_US, until_us, now_ms, now_ms + round(ANSWERED_WITHIN_S * 1_000)
    )
    following = Following(DEVICE, contract, request, lambda statement: client.query(statement).dicts())
    for _ in range(LOOKS_BEFORE):
        following.look()
    with desk(endpoints, DEVICE) as asking:
        began_s = time.monotonic()
        asking.ask(request, now_ms)
        while not (told := following.look()).is_whole:
            if time.monotonic() - began_s > ANSWERED_WITHIN_S:
                raise OperatorMustActError(f"pull to the lake: no whole answer in time: {told}")
            time.sleep(LOOK_EVERY_S)
        taken_s = time.monotonic() - began_s
        asking.withdraw(request.id)
    progress(f"pull to the lake: {told.rows} rows after {taken_s:.2f} s")
    told.require()
    return taken_s, told


@contextmanager
def _live(file: Path, lines: list[bytes]) -> Iterator[None]:
    """Append readings at their rate for as long as this is entered."""
    ends = threading.Event()

    def write() -> None:
        begin_s, written = time.monotonic(), 0
        with file.open("ab", buffering=0) as opened:
            while not ends.wait(WRITTEN_EVERY_S):
                due = min(len(lines), round((time.monotonic() - begin_s) * EVENTS_PER_S))
                opened.write(b"".join(lines[written:due]))
                written = due

    thread = threading.Thread(target=write, name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
