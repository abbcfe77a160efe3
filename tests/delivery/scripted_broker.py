"""A broker that answers as it is told: reason codes, limits, silence. MQTT Version 5.0, only what an agent needs of it.

One thread runs it; what it does is changed from others by assigning to its attributes.
"""

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from msgspec import Struct

HOST: Final = "127.0.0.1"
ACCEPTED: Final = 0x00
PACKET_BYTES_MAX: Final = 1_048_576  # bytes; a packet that claims more is not read

_CONNECT, _PUBLISH, _SUBSCRIBE, _UNSUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 8, 10, 12, 14


class Publish(Struct, frozen=True):
    """A message as it came. `packet` is None for QoS 0."""

    at_s: float
    topic: str
    payload: bytes
    packet: int | None
    dup: bool


class ScriptedBroker:
    """Takes TLS connections on a port of its own once started. `answer` says the reason code for a publish, None: none.

    `on_publish` is told of every message whose answer is a success. `unanswered_max` is the most publishes that were
    ever open on one connection.
    """

    def __init__(self, on_publish: Callable[[str, bytes], None]) -> None:
        self._on_publish = on_publish
        self.answer: Callable[[Publish], int | None] = lambda _publish: ACCEPTED
        self.connect_code = ACCEPTED
        self.receive_maximum: int | None = None
        self.maximum_packet_bytes: int | None = None
        self.publishes: list[Publish] = []
        self.connects_s: list[float] = []
        self.hellos = 0  # connections that came as far as their CONNECT
        self.tls_versions: set[str] = set()
        self.unanswered_max = 0
        self.port = 0
        self._owed: list[tuple[asyncio.StreamWriter, Publish]] = []
        self._subscribers: set[asyncio.StreamWriter] = set()
        self._retained: dict[str, bytes] = {}
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker", daemon=True)
        self._thread.start()

    def start(self, tls: ssl.SSLContext | None) -> None:
        """Listen; without a context, without TLS. A second start keeps the port."""
        self.stop()

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(self._serve, HOST, self.port, ssl=tls, reuse_address=True)

        self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more, and end every connection."""
        if self._server is not None:
            server, self._server = self._server, None

            async def end() -> None:
                server.close()
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for _ in range(5):  # a transport that was aborted closes its socket in the next rounds
                    await asyncio.sleep(0)

            asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)

    def close(self) -> None:
        """End the thread too."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def send(self, topic: str, payload: bytes) -> None:
        """Give a message to whoever has subscribed to anything, and retain it."""
        self._loop.call_soon_threadsafe(self._send, topic, payload)

    def settle(self) -> None:
        """Take everything that was not answered yet, and answer it with success."""

        def answer() -> None:
            owed, self._owed = self._owed, []
            for writer, publish in owed:
                self._on_publish(publish.topic, publish.payload)
                assert publish.packet is not None
                _write(writer, _puback(publish.packet, ACCEPTED))

        self._loop.call_soon_threadsafe(answer)

    def batches(self) -> list[Publish]:
        """Return the publishes on `up` topics."""
        return [publish for publish in self.publishes if publish.topic.startswith("fl/v1/up/")]

    def _send(self, topic: str, payload: bytes) -> None:
        self._retained[topic] = payload
        for writer in self._subscribers:
            _write(writer, _message(topic, payload))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connects_s.append(monotonic())
        session = writer.get_extra_info("ssl_object")
        if session is not None:
            self.tls_versions.add(session.version())
        try:
            while await self._packet(reader, writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has gone, or the broker is stopped
        finally:
            self._tasks.discard(task)
            self._subscribers.discard(writer)
            self._owed = [entry for entry in self._owed if entry[0] is not writer]
            writer.transport.abort()

    async def _packet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read and answer one packet; return False when the connection is to end."""
        head = (await reader.readexactly(1))[0]
        size = await _varint(reader)
        if size > PACKET_BYTES_MAX:
            return False
        body = await reader.readexactly(size)
        kind = head >> 4
        if kind == _CONNECT and head & 0x0F:
            return False  # no MQTT: a TLS record begins with 0x16
        if kind == _CONNECT:
            self.hellos += 1
            _write(writer, self._connack())
            return self.connect_code == ACCEPTED
        if kind == _PUBLISH:
            if self.maximum_packet_bytes is not None and size > self.maximum_packet_bytes:
                return False
            self._published(writer, _publish(head, body))
        elif kind in (_SUBSCRIBE, _UNSUBSCRIBE):
            self._subscribed(writer, kind, body)
        elif kind == _PINGREQ:
            _write(writer, b"\xd0\x00")
        return kind != _DISCONNECT

    def _connack(self) -> bytes:
        properties = b""
        if self.receive_maximum is not None:
            properties += b"\x21" + struct.pack(">H", self.receive_maximum)
        if self.maximum_packet_bytes is not None:
            properties += b"\x27" + struct.pack(">I", self.maximum_packet_bytes)
        body = bytes([0, self.connect_code, len(properties)]) + properties
        return bytes([0x20, len(body)]) + body

    def _published(self, writer: asyncio.StreamWriter, publish: Publish) -> None:
        self.publishes.append(publish)
        code = self.answer(publish)
        if code is not None and code < 0x10:
            self._on_publish(publish.topic, publish.payload)
        if publish.packet is None:
            return
        open_now = 1 + sum(owed is writer for owed, _ in self._owed)
        self.unanswered_max = max(self.unanswered_max, open_now)
        if code is None:
            self._owed.append((writer, publish))
        else:
            _write(writer, _puback(publish.packet, code))

    def _subscribed(self, writer: asyncio.StreamWriter, kind: int, body: bytes) -> None:
        at = 2
        length, at = _inline_varint(body, at)
        at += length
        filters = 0
        while at < len(body):
            (size,) = struct.unpack_from(">H", body, at)
            at += 2 + size + (kind == _SUBSCRIBE)
            filters += 1
        reply = body[:2] + b"\x00" + bytes([1 if kind == _SUBSCRIBE else 0]) * filters
        _write(writer, bytes([0x90 if kind == _SUBSCRIBE else 0xB0, len(reply)]) + reply)
        if kind == _SUBSCRIBE:
            self._subscribers.add(writer)
            for topic, payload in self._retained.items():
                _write(writer, _message(topic, payload))


def _publish(head: int, body: bytes) -> Publish:
    (size,) = struct.unpack_from(">H", body)
    topic = body[2 : 2 + size].decode()
    at = 2 + size
    packet = None
    if head & 0x06:
        (packet,) = struct.unpack_from(">H", body, at)
        at += 2
    length, at = _inline_varint(body, at)
    return Publish(monotonic(), topic, body[at + length :], packet, bool(head & 0x08))


def _message(topic: str, payload: bytes) -> bytes:
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + b"\x00" + payload
    return b"\x30" + _as_varint(len(body)) + body


def _puback(packet: int, code: int) -> bytes:
    return struct.pack(">BBHB", 0x40, 3, packet, code)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # the other side may have gone
        writer.write(data)


async def _varint(reader: asyncio.StreamReader) -> int:
    value = 0
    for place in range(4):
        byte = (await reader.readexactly(1))[0]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return value


def _inline_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(4):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    return value, at + 4


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)
