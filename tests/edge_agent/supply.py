"""What the tests of bundles play with: a repository, an HTTPS server that can be made to lie, and a device."""

import datetime as dt
import hashlib
import http.server
import shutil
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Bundle, Dictionary, Model
from edge_agent.core.updates.updates import Verdict
from edge_agent.updating.config import UpdatingConfig
from edge_agent.updating.fetching import DeviceFetcher
from edge_agent.updating.run import Updating
from infra.bundles import chain, metadata
from infra.bundles.keys import KeyFolder
from infra.bundles.repository import Repository
from tests.edge_agent.plant import HOST, Certificates, bundle_of

DEVICE: Final = "press-01"
GROUP: Final = "default"
Lie = bytes | Callable[[], Iterable[bytes]]


class Clock:
    """The repository's clock."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC).replace(microsecond=0)

    def __call__(self) -> dt.datetime:
        return self.now

    def turn(self, days: float) -> None:
        """Let days pass, backwards too."""
        self.now += dt.timedelta(days=days)


def put(path: Path, data: bytes) -> None:
    """Write a file; its durability is not what these tests are about."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class Supply:
    """A repository with one group, and what may be forged with its keys in the hands of an attacker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.home = folder / "repository"
        self.repository = Repository(self.home, self.clock, put)
        self.repository.init()
        self.keys = KeyFolder(self.home / "keys")

    @property
    def served(self) -> Path:
        return self.repository.served

    def publish(self, version: str, files: Mapping[str, bytes] = {}, group: str = GROUP, agent: str = "0") -> int:
        """Publish a bundle with dictionaries of these contents; return its number."""
        return self.repository.publish(group, bundle_folder(self.folder / "source", version, files), agent).number

    def chain(self) -> chain.Chain:
        """Return what is in force."""
        metadata_dir = self.served / "metadata"
        newest = max(int(file.name.partition(".")[0]) for file in metadata_dir.glob("*.root.json"))
        return chain.read(self.repository.root(newest), lambda name: (metadata_dir / name).read_bytes())

    def signers(self) -> dict[str, Any]:
        """Return all keys."""
        return {name: self.keys.load(name) for name in metadata.keys.KEYS}

    def forge(self, files: Mapping[str, bytes], group: str = GROUP, lengths: Mapping[str, int] = {}) -> None:
        """Sign any files at all as a group's, as whoever has the keys could."""
        named = {}
        for name, data in files.items():
            file = metadata.target_file(f"groups/{group}/{name}", data)
            path = self.served / "targets" / "groups" / group / f"{file.hashes['sha256']}.{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            file.length = lengths.get(name, file.length)
            named[file.path] = file
        for written in chain.next_files(self.chain(), {group: named}, self.signers(), self.clock()):
            (self.served / "metadata" / written.name).write_bytes(written.data)

    def copy(self) -> Path:
        """Return a copy of all that is served now."""
        target = self.folder / f"copy-{len(list(self.folder.glob('copy-*')))}"
        shutil.copytree(self.served, target)
        return target


def bundle_folder(folder: Path, version: str, files: Mapping[str, bytes] = {}, model: Model | None = None) -> Path:
    """Write a bundle with zstd dictionaries `{contract}.zdict` of these contents, and return its folder."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / BUNDLE_FILE).write_bytes(bundles.encode(bundle_with(version, files, model)))
    return folder


def bundle_with(version: str, files: Mapping[str, bytes] = {}, model: Model | None = None) -> Bundle:
    """Return a bundle that names these files."""
    dictionaries = tuple(
        Dictionary(int.from_bytes(data[4:8], "little"), name.partition(".")[0], name, hashlib.sha256(data).hexdigest())
        for name, data in files.items()
        if name.endswith(".zdict")
    )
    plain = bundle_of(model)
    return Bundle(version, plain.contracts, plain.streams, dictionaries, plain.models)


class LyingServer:
    """Serves a folder over HTTPS to whoever has a certificate; `lies` are given instead of files, by path."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self.folder, self.lies = folder, dict[str, Lie]()
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                file = outer.folder / self.path[1:]
                lie = outer.lies.get(self.path)
                if lie is None and not file.is_file():
                    self.send_error(404)
                    return
                self.send_response(200)
                self.end_headers()
                try:
                    for part in [lie or file.read_bytes()] if not callable(lie) else lie():
                        self.wfile.write(part)
                        self.wfile.flush()
                except OSError:
                    return  # the device hung up

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert_file, key_file = certificates.issue("bundles-server")
        context.load_cert_chain(cert_file, key_file)
        context.load_verify_locations(certificates.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FolderFetcher(FetcherInterface):
    """Fetches from the served folder itself, for tests that are not about the way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fetched_bytes = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix("https://repository/")
        if not path.is_file():
            raise DownloadHTTPError("no such file", 404)
        data = path.read_bytes()
        self.fetched_bytes += len(data)
        yield data


class Device:
    """A device that updates from a server."""

    def __init__(self, folder: Path, url: str, root: bytes, certificates: Certificates | None = None) -> None:
        folder.mkdir()
        root_file = folder / "root.json"
        root_file.write_bytes(root)
        cert_file, key_file = certificates.issue(DEVICE) if certificates else (folder / "none", folder / "none")
        ca_file = certificates.ca_file if certificates else folder / "none"
        self.bundles_dir = folder / "bundles"
        self.config = UpdatingConfig(
            DEVICE, GROUP, url, str(ca_file), str(cert_file), str(key_file), str(root_file), str(self.bundles_dir)
        )  # fmt: skip

    def update(
        self,
        *,
        announced: int = 0,
        now: dt.datetime | None = None,
        agent_version: str = "0.1.0",
        monotonic_s: Callable[[], float] = lambda: 0.0,
        silence_s: float = 10.0,
        fetcher: Any = None,
    ) -> Verdict:
        """Run once."""
        fetcher = fetcher or DeviceFetcher(self.config, monotonic_s, silence_s)
        return Updating(self.config, fetcher, now or dt.datetime.now(dt.UTC), agent_version).run(announced)


@contextmanager
def supplied(folder: Path) -> Iterator[tuple[Supply, LyingServer, Device]]:
    """A repository with one release, its server, and a device that has not asked yet."""
    folder.mkdir(exist_ok=True)
    supply = Supply(folder)
    supply.publish("1")
    (folder / "tls").mkdir()
    certificates = Certificates(folder / "tls")
    server = LyingServer(supply.served, certificates)
    try:
        yield supply, server, Device(folder / "device", server.url, supply.repository.root(), certificates)
    finally:
        server.close()
