"""Settings of one copy of the stack: where its state lies, which ports it takes, how much memory its parts may use."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from infra.launcher.errors import SettingsError
from infra.setup.paths import repo_root

STATE_DIR_VARIABLE: Final = "FIELDLAKE_STATE_DIR"
PORT_BASE_VARIABLE: Final = "FIELDLAKE_PORT_BASE"
INGEST_WORKERS_VARIABLE: Final = "FIELDLAKE_INGEST_WORKERS"

HOST: Final = "127.0.0.1"
PORT_BASE_DEFAULT: Final = 24_000  # below Linux's ephemeral range (32768), so no outgoing connection takes one of ours
PORT_BASE_MIN: Final = 1_024
PORTS_SPAN: Final = 100  # ports; two copies need bases this far apart
PORT_BASE_MAX: Final = 65_535 - PORTS_SPAN

INGEST_WORKERS_DEFAULT: Final = 1
INGEST_WORKERS_MAX: Final = 4  # processes; the batches have so many partitions, one more would have none

# A UNIX socket's path is limited to 107 bytes; supervisor binds `<path>.<pid>` first and then renames it.
SOCKET_PATH_BYTES_MAX: Final = 95

PORT_OFFSETS: Final[Mapping[str, int]] = {
    "postgres": 1,
    "store_a": 10,
    "store_a_master": 11,
    "store_a_master_grpc": 12,
    "store_a_volume": 13,
    "store_a_volume_grpc": 14,
    "store_a_filer": 15,
    "store_a_filer_grpc": 16,
    "store_a_grpc": 17,
    "store_b": 20,
    "mosquitto": 30,
    "mosquitto_bootstrap": 31,
    "mosquitto_services": 32,
    "kafka": 40,
    "kafka_controller": 41,
    "kafka_tls": 42,
    "flink_rest": 50,
    "flink_rpc": 51,
    "flink_blob": 52,
    "flink_task_rpc": 53,
    "flink_task_data": 54,
    "trino_internal": 60,
    "trino": 61,
    "history": 70,
    "gateway": 71,
    "ingest": 72,
    "maintenance": 73,
    "preselect": 74,
    "warmup": 75,
    "bundles": 76,
}


class Memory(Struct, frozen=True):
    """Upper bounds of the big processes, in MiB; together with their overheads the stack stays below 6 GiB."""

    kafka_heap_mib: int = 512
    trino_heap_mib: int = 1_024
    job_manager_mib: int = 768
    task_manager_mib: int = 1_024
    store_b_heap_mib: int = 128
    postgres_buffers_mib: int = 64


class StackSettings(Struct, frozen=True):
    """One copy of the stack. `state_dir` is absolute; ports lie in `[port_base, port_base + PORTS_SPAN)`."""

    state_dir: Path
    port_base: int = PORT_BASE_DEFAULT
    memory: Memory = Memory()
    ingest_workers: int = INGEST_WORKERS_DEFAULT

    def port(self, name: str) -> int:
        """Return the TCP port with this name; raises KeyError for a name outside PORT_OFFSETS."""
        return self.port_base + PORT_OFFSETS[name]

    @property
    def conf_dir(self) -> Path:
        """Folder of rendered configuration, certificates and secrets."""
        return self.state_dir / "conf"

    @property
    def data_dir(self) -> Path:
        """Folder of what must survive a restart."""
        return self.state_dir / "data"

    @property
    def logs_dir(self) -> Path:
        """Folder with one log per part."""
        return self.state_dir / "logs"

    @property
    def run_dir(self) -> Path:
        """Folder of pid files, locks and sockets."""
        return self.state_dir / "run"

    @property
    def instance(self) -> str:
        """Short name of this copy, the same for every process that starts from the same state folder."""
        return hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:12]

    def socket_path(self, name: str) -> Path:
        """Return where a part's UNIX socket lies: in the state folder, or in the temporary one if that path is long."""
        inside = self.run_dir / f"{name}.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        return Path(tempfile.gettempdir()) / f"fieldlake-{self.instance}" / f"{name}.sock"


def load_settings(
    environment: Mapping[str, str], state_dir: Path | None = None, port_base: int | None = None
) -> StackSettings:
    """Return the settings from options (first) and environment variables. Raises SettingsError."""
    if state_dir is None:
        configured = environment.get(STATE_DIR_VARIABLE, "")
        state_dir = Path(configured) if configured else repo_root() / ".fieldlake"
    if port_base is None:
        port_base = _port_base(environment.get(PORT_BASE_VARIABLE, str(PORT_BASE_DEFAULT)))
    if not PORT_BASE_MIN <= port_base <= PORT_BASE_MAX:
        raise SettingsError(
            f"{PORT_BASE_VARIABLE}: expected a port between {PORT_BASE_MIN} and {PORT_BASE_MAX}, found {port_base}"
        )
    workers = environment.get(INGEST_WORKERS_VARIABLE, str(INGEST_WORKERS_DEFAULT))
    if not workers.isdecimal() or not 1 <= int(workers) <= INGEST_WORKERS_MAX:
        raise SettingsError(f"{INGEST_WORKERS_VARIABLE}: expected 1 to {INGEST_WORKERS_MAX}, found {workers!r}")
    return StackSettings(state_dir.expanduser().absolute(), port_base, ingest_workers=int(workers))


def _port_base(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{PORT_BASE_VARIABLE}: expected a port number, found {text!r}") from None
