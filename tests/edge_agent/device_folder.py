"""A device on disk for those who look at one: certificate, bundle, configuration and a sample, and no agent."""

import datetime
import json
from pathlib import Path

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Bundle
from edge_agent.config import AgentConfig, load
from tests.edge_agent.plant import DAY, HOST, Certificates, Json, bundle_of, free_port, lines_of, reading

DEVICE = "press-01"


class DeviceFolder:
    """Everything that an agent's configuration names, below one folder."""

    def __init__(self, folder: Path, bundle: Bundle | None = None, ends_in: datetime.timedelta = 90 * DAY) -> None:
        self.folder = folder
        self.config_file = folder / "agent.json"
        self.sample = folder / "sample.jsonl"
        certificates = Certificates(folder)
        cert_file, key_file = certificates.issue(DEVICE, ends_in=ends_in)
        key_file.chmod(0o600)
        self.bundle_dir = self.give(bundle if bundle is not None else bundle_of(), "bundle")
        self.sample.write_bytes(b"\n".join(lines_of([reading(seq) for seq in range(100)])) + b"\n")
        self.config: Json = {
            "device": DEVICE,
            "shard": 0,
            "mqtt": {
                "host": HOST,
                "port": free_port(),
                "ca_file": str(certificates.ca_file),
                "cert_file": str(cert_file),
                "key_file": str(key_file),
            },
            "bundle_dir": str(self.bundle_dir),
            "spool_dir": str(folder / "spool"),
            "status_file": str(folder / "status.json"),
            "spool": {"quota_bytes": 2**24, "ring_bytes": 2**20},
            "sources": [{"kind": "file", "name": "replay", "file": str(self.sample), "contract": "telemetry"}],
        }

    def give(self, bundle: Bundle, name: str) -> Path:
        """Write a bundle and return its folder."""
        folder = self.folder / name
        folder.mkdir()
        (folder / BUNDLE_FILE).write_bytes(bundles.encode(bundle))
        return folder

    def written(self) -> AgentConfig:
        """Write the configuration and return it."""
        self.config_file.write_text(json.dumps(self.config))
        return load(self.config_file)
