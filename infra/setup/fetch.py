"""Downloads one group of artifacts into the cache. Run by the tools environment, the only one with jgo.

    python -m infra.setup.fetch GROUP FOLDER

Writes one line `<done> <total>` (bytes) to stdout whenever a further step of progress is reached, and on failure
one line with the reason to stderr. A file is

1. downloaded into a folder of its own, because the resolver takes any file it finds for a complete one;
2. verified against the list;
3. renamed into FOLDER, so that nothing unverified ever lies there.

Killed between any two steps, the next run starts that file again and keeps every other.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.setup import artifacts, paths
from infra.setup.artifacts import Artifact
from infra.setup.errors import DownloadError, SetupError

# Small jars are bound by round trips, not by the line: six at a time take a 45-jar closure from 30 s to 6 s.
PARALLEL_DOWNLOADS: Final = 6
# A connection cut once is common, three times in a row is an outage that a person has to look at.
TRIES_PER_FILE: Final = 3
# Long enough for a name server or a proxy to come back, short enough not to look like a hang.
RETRY_PAUSE_S: Final = 2.0
# Longest silence of the server before a try is given up.
SILENCE_TIMEOUT_S: Final = 60
# Progress is reported in steps of this size: 100 lines for the largest artifact.
PROGRESS_STEP_BYTES: Final = 8_000_000

OnBytes = Callable[[int], None]
Downloader = Callable[[Artifact, Path, OnBytes], Path]
"""Takes the artifact, an empty folder to write in, and a sink for byte counts; returns the written file."""


class Progress:
    """Counts bytes from several threads and passes on every further step."""

    def __init__(self, total_bytes: int, report: Callable[[int, int], None]) -> None:
        self._total_bytes = total_bytes
        self._report = report
        self._done_bytes = 0
        self._reported_bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count `count` more bytes; a negative count takes back a failed try."""
        with self._lock:
            self._done_bytes += count
            if self._done_bytes - self._reported_bytes >= PROGRESS_STEP_BYTES or self._done_bytes == self._total_bytes:
                self._reported_bytes = self._done_bytes
                self._report(self._done_bytes, self._total_bytes)


def fetch_group(
    group: tuple[Artifact, ...],
    folder: Path,
    download: Downloader,
    report: Callable[[int, int], None],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring every missing artifact of `group` into `folder`; those that arrived stay when another fails.

    `pause` waits so many seconds before another try.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [artifact for artifact in group if not artifacts.is_complete(artifact, folder)]
    progress = Progress(sum(artifact.bytes for artifact in missing), report)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        fetched = [pool.submit(fetch_one, artifact, folder, download, progress.add, pause) for artifact in missing]
    for one in fetched:
        one.result()


def fetch_one(
    artifact: Artifact, folder: Path, download: Downloader, on_bytes: OnBytes, pause: Callable[[float], None]
) -> None:
    """Bring one artifact into `folder` by the three steps of the module's docstring."""
    for attempt in range(1, TRIES_PER_FILE + 1):
        counted = _Counted(on_bytes)
        with tempfile.TemporaryDirectory(prefix=paths.SCRATCH_PREFIX, dir=folder) as incoming:
            try:
                file = download(artifact, Path(incoming), counted.add)  # Step 1.
                artifacts.verify(artifact, file)  # Step 2.
            except DownloadError as error:
                counted.take_back()
                if attempt == TRIES_PER_FILE:
                    raise DownloadError(
                        f"{error} after {TRIES_PER_FILE} tries; check the network (a proxy is read from the "
                        "environment) and run again: what has arrived is kept"
                    ) from error
                pause(RETRY_PAUSE_S)
                continue
            file.rename(folder / artifact.filename)  # Step 3.
            return


class _Counted:
    """Remembers what one try has counted, so that a failed one can be taken back."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        self._on_bytes(count)

    def take_back(self) -> None:
        self._on_bytes(-self._bytes)


def download_with_jgo(artifact: Artifact, folder: Path, on_bytes: OnBytes) -> Path:
    """Download through jgo, whose resolver knows the repository layout and its default repositories.

    Raises:
        DownloadError: the file did not arrive.
    """
    import requests
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def progress(_filename: str, _total_bytes: int) -> Iterator[OnBytes]:
        yield on_bytes

    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=folder,
        local_repos=[],
        timeout=SILENCE_TIMEOUT_S,
    )
    component = context.project(artifact.group, artifact.artifact).at_version(artifact.version)
    try:
        return Path(component.artifact(classifier=artifact.classifier, packaging=artifact.packaging).resolve())
    except requests.RequestException as error:
        raise DownloadError(f"{artifact.filename}: {type(error).__name__}: {error}") from error
    except RuntimeError as error:  # the resolver's only error for "no repository has it"
        raise DownloadError(f"{artifact.filename}: {error}") from error


def main() -> int:
    """Fetch one group and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=sorted(artifacts.load()))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        fetch_group(
            artifacts.load()[arguments.group],
            arguments.folder,
            download_with_jgo,
            lambda done, total: print(done, total, flush=True),
        )
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
