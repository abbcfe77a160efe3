"""The proxy before an object store: each fault arrives as such, and without one nothing is changed."""

import hashlib
import http.client
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lake.s3_faults import NO_FAULTS, Fault, Rates, drawn, is_listing, without_newest
from benchmarks.lake.s3_proxy import LATE_S, S3Proxy, Trap

OBJECT = "/lake/表/00001-a%2Bb.metadata.json?x-id=PutObject"
OBJECT = OBJECT.replace("表", "%E8%A1%A8")
LISTING = "/lake/?list-type=2&prefix=wh%2F"


class Store:
    """A server that keeps what it is sent and lists it with times of its own."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str | None]] = []
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                store.seen.append(("PUT", self.path, self.headers["Host"]))
                store.objects[urlsplit(self.path).path] = body
                self._answer(200, b"", {"ETag": hashlib.md5(body).hexdigest()})

            def do_GET(self) -> None:
                store.seen.append(("GET", self.path, self.headers["Host"]))
                if "list-type" in self.path:
                    return self._answer(200, store.listing())
                body = store.objects.get(urlsplit(self.path).path)
                self._answer(404 if body is None else 200, body or b"")

            def do_HEAD(self) -> None:
                self._answer(200, store.objects[urlsplit(self.path).path])

            def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def listing(self) -> bytes:
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()).encode()
        entries = b"".join(
            b"<Contents><Key>%s</Key><LastModified>%s</LastModified></Contents>" % (name.encode(), now)
            for name in sorted(self.objects)
        )
        return b"<ListBucketResult><KeyCount>%d</KeyCount>%s</ListBucketResult>" % (len(self.objects), entries)


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()


@contextmanager
def proxied(store: Store, **rates: float) -> Iterator[tuple[S3Proxy, http.client.HTTPConnection]]:
    """A proxy that makes these faults, and a client before it."""
    none = dict.fromkeys(Rates.__struct_fields__, 0.0)
    with S3Proxy(f"http://127.0.0.1:{store.server.server_address[1]}", 7, Rates(**{**none, **rates})) as proxy:
        client = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=30)
        try:
            yield proxy, client
        finally:
            client.close()


def asked(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_without_a_fault_path_host_and_bytes_stay_as_they_are(store: Store) -> None:
    body = bytes(range(256)) * 20_000  # more than a server takes by default
    with proxied(store) as (proxy, client):
        assert asked(client, "PUT", OBJECT, body) == (200, b"")
        assert asked(client, "GET", OBJECT) == (200, body)
        client.request("HEAD", OBJECT)
        head = client.getresponse()
        assert (head.read(), head.headers["Content-Length"]) == (b"", str(len(body)))
        assert asked(client, "GET", "/lake/none")[0] == 404
        host = proxy.url.removeprefix("http://")
        assert store.seen[:2] == [("PUT", OBJECT, host), ("GET", OBJECT, host)]
        assert proxy.faults == {Fault.NONE: 4}


@pytest.mark.parametrize(("name", "status"), [("refused", 500), ("slow_down", 503)])
def test_a_refusal_leaves_the_store_alone(store: Store, name: str, status: int) -> None:
    with proxied(store, **{name: 1.0}) as (_, client):
        found, body = asked(client, "PUT", OBJECT, b"1")
        assert found == status
        assert b"<Code>" in body
        assert store.objects == {}


def test_an_unsure_answer_has_done_it(store: Store) -> None:
    with proxied(store, unsure=1.0) as (_, client):
        assert asked(client, "PUT", OBJECT, b"1")[0] == 500
        assert list(store.objects.values()) == [b"1"]


def test_a_reset_comes_after_the_store_has_the_body(store: Store) -> None:
    with proxied(store, reset=1.0) as (_, client):
        with pytest.raises(ConnectionResetError):
            asked(client, "PUT", OBJECT, b"1")
        assert list(store.objects.values()) == [b"1"]


def test_a_late_answer_is_the_right_one(store: Store) -> None:
    with proxied(store, late=1.0) as (_, client):
        began_s = time.monotonic()
        assert asked(client, "PUT", OBJECT, b"1") == (200, b"")
        assert time.monotonic() - began_s >= LATE_S


def test_a_stale_listing_lacks_what_has_just_come(store: Store) -> None:
    with proxied(store, stale=1.0) as (proxy, client):
        assert asked(client, "PUT", OBJECT, b"1")[0] == 200
        status, listing = asked(client, "GET", LISTING)
        assert (status, b"<Contents>" in listing, b"<KeyCount>0<" in listing) == (200, False, True)
        proxy.rates = NO_FAULTS
        assert b"<Contents>" in asked(client, "GET", LISTING)[1]


def test_a_stale_listing_has_what_is_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.lake.s3_proxy.STALE_S", -1.0)
    with proxied(store) as (proxy, client):
        asked(client, "PUT", OBJECT, b"1")
        before = asked(client, "GET", LISTING)[1]
        store.objects.clear()
        proxy.rates = Rates(0, 0, 0, 0, 0, stale=1.0)
        assert asked(client, "GET", LISTING)[1] == before


def test_a_store_that_is_away_resets_the_connection(store: Store) -> None:
    with S3Proxy("http://127.0.0.1:9") as proxy:
        client = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=30)
        with pytest.raises(ConnectionResetError):
            asked(client, "GET", OBJECT)
        client.close()


@pytest.mark.parametrize("stage", ["before", "after"])
def test_a_trap_catches_the_last_write_of_a_commit(store: Store, stage: str) -> None:
    ports: list[int] = []
    stored: list[int] = []

    def caught(port: int) -> bool:
        ports.append(port)
        stored.append(len(store.objects))
        return len(ports) == 2

    with proxied(store) as (proxy, client):
        proxy.arm(Trap(stage, caught))  # type: ignore[arg-type]
        asked(client, "PUT", "/lake/data.parquet", b"1")
        assert ports == []
        client.request("PUT", OBJECT, b"1")
        own = client.sock.getsockname()[1]
        client.getresponse().read()
        assert proxy.is_armed
        asked(client, "PUT", OBJECT, b"1")
        asked(client, "PUT", OBJECT, b"1")
        assert not proxy.is_armed
        assert ports == [own, own]
        assert stored[0] == (1 if stage == "before" else 2)


@given(st.integers(), st.integers(0, 10_000), st.booleans())
def test_a_seed_decides_by_number(seed: int, number: int, listing: bool) -> None:
    fault = drawn(seed, number, Rates(), listing)
    assert fault is drawn(seed, number, Rates(), listing)
    assert listing or fault is not Fault.STALE
    assert drawn(seed, number, NO_FAULTS, listing) is Fault.NONE


def test_shares_come_out_as_asked_for() -> None:
    rates = Rates(0.1, 0.1, 0.1, 0.1, 0.1, 0.5)
    counts = Counter(drawn(3, number, rates, True) for number in range(20_000))
    assert counts[Fault.NONE] < 100
    assert all(1_700 < counts[fault] < 2_300 for fault in Fault if fault not in (Fault.NONE, Fault.STALE))
    assert 9_500 < counts[Fault.STALE] < 10_500


def test_only_listings_are_listings() -> None:
    assert is_listing("GET", LISTING)
    assert not is_listing("PUT", LISTING)
    assert not is_listing("GET", "/lake/wh/prefix.parquet?x-id=GetObject")


def test_entries_without_a_readable_time_stay() -> None:
    listing = b"<KeyCount>1</KeyCount><Contents><Key>a</Key></Contents>"
    assert without_newest(listing, 1_760_000_000.0, 5.0) == listing
