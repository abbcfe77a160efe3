"""A reverse proxy before an object store that makes the faults a seed has decided, and can hold a commit's last write.

Signatures stay valid: the store sees the host, headers and bytes that the client has signed.
"""

import asyncio
import io
import logging
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, Self

import aiohttp
from aiohttp import web
from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from benchmarks.lake.s3_faults import NO_FAULTS, Fault, Rates, drawn, is_listing, without_newest
from infra.launcher.settings import HOST

LATE_S: Final = 0.2
STALE_S: Final = 5.0  # s that a stale listing lies back, at least
LISTINGS_MAX: Final = 256  # remembered answers
START_WITHIN_S: Final = 15.0
ANSWER_WITHIN_S: Final = 120.0
BACKLOG: Final = 1_024
METADATA: Final = ".metadata.json"  # the last file that a commit writes before it moves the table's pointer
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "upgrade", "te", "trailer"})
_ERROR: Final = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>injected</Message></Error>'

Stage = Literal["before", "after"]


class Trap(Struct, frozen=True):
    """What is called once for a write of table metadata, `before` the store has it or `after`.

    `caught(port)` gets the client's port and says whether that was whom it waits for; otherwise the next one is tried.
    """

    stage: Stage
    caught: Callable[[int], bool]


class _Answer(Struct, frozen=True):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    at_s: float


class S3Proxy:
    """Serves on a loopback port of its own while entered, from a thread of its own."""

    def __init__(self, upstream: str, seed: int = 0, rates: Rates = NO_FAULTS) -> None:
        self.faults: Counter[Fault] = Counter()
        self.requests = 0
        self.rates = rates
        self._upstream, self._seed = upstream, seed
        self._listings: dict[str, _Answer] = {}
        self._trap: Trap | None = None
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._failure: BaseException | None = None
        self._up, self._down = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="s3-proxy", daemon=True)

    @property
    def url(self) -> str:
        """What a client takes for the store."""
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._up.wait(START_WITHIN_S) or self._failure is not None:
            raise OSError(f"proxy before {self._upstream}: did not start: {self._failure}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join()

    def arm(self, trap: Trap | None) -> None:
        """Wait for a commit's last write; None gives up waiting."""
        self._trap = trap

    @property
    def is_armed(self) -> bool:
        """Whether the trap is still open."""
        return self._trap is not None

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._up.set()
            self._loop.close()

    async def _serve(self) -> None:
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a connection that we reset is no news
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as self._session:
            runner = web.ServerRunner(web.Server(self._handle))
            await runner.setup()
            try:
                site = web.TCPSite(runner, HOST, 0, backlog=BACKLOG)
                await site.start()
                self._port = runner.addresses[0][1]
                self._up.set()
                await self._down.wait()
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        number, self.requests = self.requests, self.requests + 1
        listing = is_listing(request.method, request.raw_path)
        fault = drawn(self._seed, number, self.rates, listing)
        self.faults[fault] += 1
        if fault is Fault.REFUSED:
            return _refusal(500, "InternalError")
        if fault is Fault.SLOW_DOWN:
            return _refusal(503, "SlowDown")
        if fault is Fault.LATE:
            await asyncio.sleep(LATE_S)
        try:
            await self._spring(request, "before")
            answer = await self._forward(request, body)
            await self._spring(request, "after")
        except (aiohttp.ClientError, OSError, TimeoutError):
            return _reset(request)  # The store is away: so is whatever stands for it.
        if fault is Fault.UNSURE:
            return _refusal(500, "InternalError")
        if fault is Fault.RESET:
            return _reset(request)
        if listing:
            answer = self._listed(request.raw_path, answer, fault is Fault.STALE)
        return await _sent(request, answer)

    async def _forward(self, request: web.BaseRequest, body: bytes) -> _Answer:
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP)
        async with self._session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=headers,
            data=io.BytesIO(body) if body else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
        ) as response:
            return _Answer(response.status, response.headers, await response.read(), time.time())

    def _listed(self, path: str, answer: _Answer, stale: bool) -> _Answer:
        before = self._listings.get(path)
        if answer.status == 200 and (before is None or answer.at_s - before.at_s > STALE_S):
            if len(self._listings) >= LISTINGS_MAX:
                self._listings.pop(next(iter(self._listings)))
            self._listings[path] = answer
        if not stale:
            return answer
        # An answer of a while ago also has what was deleted since; without one, what came since is left out.
        if before is not None and answer.at_s - before.at_s > STALE_S:
            return before
        return _Answer(answer.status, answer.headers, without_newest(answer.body, answer.at_s, STALE_S), answer.at_s)

    async def _spring(self, request: web.BaseRequest, stage: Stage) -> None:
        trap = self._trap
        if trap is None or trap.stage != stage or request.method != "PUT" or METADATA not in request.raw_path:
            return
        transport = request.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        if peer is not None and await asyncio.to_thread(trap.caught, peer[1]):
            self._trap = None


def _refusal(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=_ERROR.format(code), content_type="application/xml")


def _reset(request: web.BaseRequest) -> web.Response:
    """End the connection so that the client sees a reset and no end of file."""
    if (transport := request.transport) is not None:
        if (raw := transport.get_extra_info("socket")) is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)  # goes nowhere


async def _sent(request: web.BaseRequest, answer: _Answer) -> web.StreamResponse:
    headers = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP)
    if request.method != "HEAD" and ("Content-Length" in headers or answer.body):
        headers["Content-Length"] = str(len(answer.body))
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    if request.method != "HEAD" and answer.body:
        await response.write(answer.body)
    await response.write_eof()
    return response
