"""The bundle server: who asks is in the certificate, what may be had is in `paths`, the rest is files."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from contracts.errors import ReleaseError
from contracts.topics import is_origin
from gateway.bundles.announcing import Announcer
from gateway.bundles.config import BundlesConfig
from gateway.bundles.membership import Groups
from gateway.bundles.paths import served
from gateway.bundles.seen import Seen

FOLLOW_S: Final = 0.5  # s between two looks at the repository's timestamp; a device hears of a release within a second
BUSY_S: Final = 0.02  # s between two handfuls of announcements: 200 each, 10,000 devices a second
KEEPALIVE_S: Final = 15.0
STOP_S: Final = 3.0  # s for answers that are under way
FOR_EVER: Final = "public, max-age=31536000, immutable"

_LOG: Final = logging.getLogger(__name__)


class BundlesStatus(Struct, frozen=True):
    """Counters since the process started. `told` devices were announced the newest timestamp version."""

    pid: int
    timestamp_version: int
    served: int
    refused: int
    devices: int
    told: int
    broker_connected: bool


class BundleServer:
    """Serves and announces until stopped. All of it runs in one event loop, but for paho's thread."""

    def __init__(self, config: BundlesConfig, groups: Groups, seen: Seen, announcer: Announcer) -> None:
        self._config, self._groups, self._seen, self._announcer = config, groups, seen, announcer
        self._folder = Path(config.served_dir)
        self._served = self._refused = self._timestamp_version = 0
        self._app = web.Application(client_max_size=1)
        self._app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(self._app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=STOP_S)

    async def start(self) -> int:
        """Listen, and return the port. Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._config.host, self._config.port, ssl_context=self._tls())
        await site.start()
        self._announcer.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def follow(self) -> None:
        """Announce what the repository signs, until cancelled."""
        while True:
            all_told = self.announce()
            self._save()
            await asyncio.sleep(FOLLOW_S if all_told else BUSY_S)

    def announce(self) -> bool:
        """Tell known devices of the newest timestamp; return whether all are told."""
        version = timestamp_version(self._folder / "metadata" / "timestamp.json")
        if version is None:
            return True
        self._timestamp_version = version
        try:
            named = self._groups.named()
        except ReleaseError as error:
            _LOG.error("groups_refused why=%r", str(error))
            named = frozenset()
        return self._announcer.tell(named | self._seen.devices, version)

    async def stop(self) -> None:
        """Close the listener and the broker's connection."""
        await self._runner.cleanup()
        self._announcer.close()
        self._save()

    def status(self, pid: int) -> BundlesStatus:
        """Return the counters."""
        return BundlesStatus(
            pid=pid,
            timestamp_version=self._timestamp_version,
            served=self._served,
            refused=self._refused,
            devices=len(self._seen.devices),
            told=self._announcer.told,
            broker_connected=self._announcer.connected,
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        device = device_of(request)
        group = self._group(device)
        if device is None or group is None:
            return self._refuse(request, device, 403)
        self._seen.note(device)
        found = served(request.rel_url.raw_path, group)
        if found is None or not (self._folder / found.path).is_file():
            return self._refuse(request, device, 404)
        self._served += 1
        caching = FOR_EVER if found.is_immutable else "no-store"
        return web.FileResponse(self._folder / found.path, headers={"Cache-Control": caching})

    def _group(self, device: str | None) -> str | None:
        try:
            return self._groups.group_of(device) if device is not None else None
        except ReleaseError as error:
            _LOG.error("groups_refused why=%r", str(error))
            return None

    def _save(self) -> None:
        try:
            self._seen.save()
        except OSError as error:  # a full disk must not keep devices from their bundles
            _LOG.warning("devices_not_noted why=%r do=%r", str(error), "free disk space")

    def _refuse(self, request: web.Request, device: str | None, status: int) -> web.Response:
        self._refused += 1
        if not request.path.endswith(".root.json"):  # every device asks for the root that does not exist yet
            _LOG.warning("refused device=%s path=%r status=%d", device, request.path[:200], status)
        return web.Response(status=status)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._config.client_ca_file)
        context.load_cert_chain(self._config.tls_cert_file, self._config.tls_key_file)
        return context


def device_of(request: web.Request) -> str | None:
    """Return the common name of the certificate that the connection was made with, None if it is no device's name."""
    certificate: dict[str, Any] | None = request.get_extra_info("peercert")
    names = [
        value for relative in (certificate or {}).get("subject", ()) for key, value in relative if key == "commonName"
    ]
    return names[0] if len(names) == 1 and is_origin(names[0]) else None


class _Signed(Struct, frozen=True):
    version: int


class _Timestamp(Struct, frozen=True):
    signed: _Signed


def timestamp_version(path: Path) -> int | None:
    """Return the version that the repository's timestamp bears, None while there is no repository."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Timestamp).signed.version
    except (FileNotFoundError, msgspec.DecodeError):
        return None
