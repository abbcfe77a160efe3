"""Keeps one job running on the Flink cluster: `python -m infra.launcher.job_keeper --config FILE`.

Every POLL_S it looks for the job by name. Gone means that the cluster lost it (a session cluster forgets its jobs with
its job manager), so it is submitted again, once a slot is free. `FILE.ready` exists while all its tasks run.
"""

import argparse
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import requests
from msgspec import Struct

POLL_S: Final = 1.0
REST_TIMEOUT_S: Final = 5.0
SUBMIT_TIMEOUT_S: Final = 180.0  # 9 to 23 s on an idle machine, several times that while everything starts
OUTPUT_LINES_LOGGED: Final = 20
ENDED: Final = frozenset({"FAILED", "CANCELED", "FINISHED", "SUSPENDED"})

_LOG: Final = logging.getLogger("job_keeper")


class JobKeeperConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which job, on which cluster, and the command that submits it."""

    rest_url: str
    job_name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    ready_file: str


class JobState(Struct, frozen=True):
    """A job that has not ended. `complete` when all its tasks run."""

    job_id: str
    state: str
    complete: bool


def find_job(overview: dict[str, Any], name: str) -> JobState | None:
    """Return the job with this name that has not ended, from the cluster's answer to `/jobs/overview`."""
    for job in overview["jobs"]:
        if job["name"] == name and job["state"] not in ENDED:
            tasks = job["tasks"]
            complete = job["state"] == "RUNNING" and tasks["running"] == tasks["total"] > 0
            return JobState(job["jid"], job["state"], complete)
    return None


class JobKeeper:
    """One job. `stop` may be called from a signal handler."""

    def __init__(self, config: JobKeeperConfig) -> None:
        self._config = config
        self._ready = Path(config.ready_file)
        self._stopped = threading.Event()
        self._http = requests.Session()
        self._http.trust_env = False

    def stop(self) -> None:
        """End `run` within POLL_S, or within a submission's own end."""
        self._stopped.set()

    def run(self) -> None:
        """Look, submit, look again, until stopped."""
        self._ready.unlink(missing_ok=True)
        while not self._stopped.wait(POLL_S):
            try:
                job = find_job(self._get("/jobs/overview"), self._config.job_name)
                self._tell(job)
                if job is None and self._get("/overview")["slots-available"] > 0:
                    self._submit()
            except (requests.RequestException, ValueError) as error:
                self._tell(None)
                _LOG.warning("cluster_unreachable url=%s why=%r", self._config.rest_url, str(error))
        self._ready.unlink(missing_ok=True)

    def _tell(self, job: JobState | None) -> None:
        if job is None or not job.complete:
            self._ready.unlink(missing_ok=True)
        elif not self._ready.exists():
            self._ready.write_text(job.job_id)
            _LOG.info("job_running name=%s id=%s", self._config.job_name, job.job_id)

    def _submit(self) -> None:
        _LOG.info("job_submitted name=%s", self._config.job_name)
        try:
            result = subprocess.run(
                self._config.command,
                env=self._config.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SUBMIT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            _LOG.error("ERROR submission of %s did not end within %.0f s", self._config.job_name, SUBMIT_TIMEOUT_S)
            return
        if result.returncode != 0:
            tail = "\n".join(result.stdout.strip().splitlines()[-OUTPUT_LINES_LOGGED:])
            _LOG.error("ERROR submission of %s ended with %d:\n%s", self._config.job_name, result.returncode, tail)

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._http.get(self._config.rest_url + path, timeout=REST_TIMEOUT_S)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.launcher.job_keeper", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="JobKeeperConfig, JSON")
    config_file: Path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keeper = JobKeeper(msgspec.json.decode(config_file.read_bytes(), type=JobKeeperConfig))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: keeper.stop())
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
