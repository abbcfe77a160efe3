"""HTTPS as the device, for the library that verifies: its certificate, no proxy, no redirect, and a deadline for all.

The library's own fetcher knows no client certificate and bounds only the pause between two packets, so a server that
sends a byte now and then would hold it for ever.
"""

import ssl
from collections.abc import Callable, Iterator
from typing import Final

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from edge_agent.updating.config import UpdatingConfig

CONNECT_S: Final = 10.0  # s; a handshake over a satellite takes two
SILENCE_S: Final = 10.0  # s without a byte
CHUNK_BYTES: Final = 65_536
HTTP_ERROR: Final = 400  # status codes from here are refusals
HTTP_REDIRECT: Final = 300


class DeviceFetcher(FetcherInterface):
    """Fetches as the device. `until_s` is the end of everything on the clock given; `fetched_bytes` counts bodies."""

    def __init__(self, config: UpdatingConfig, monotonic_s: Callable[[], float], silence_s: float = SILENCE_S) -> None:
        self._pool = urllib3.PoolManager(
            ca_certs=config.ca_file,
            cert_file=config.cert_file,
            key_file=config.key_file,
            cert_reqs="CERT_REQUIRED",
            ssl_minimum_version=ssl.TLSVersion.TLSv1_3,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=silence_s),
        )
        self._monotonic_s = monotonic_s
        self._until_s = monotonic_s() + config.run_s
        self.fetched_bytes = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        self._check_time(url)
        try:
            response = self._pool.request(
                "GET", url, preload_content=False, redirect=False, headers={"Accept-Encoding": "identity"}
            )
        except urllib3.exceptions.NewConnectionError as error:  # the library derives it from its timeout
            raise DownloadError(f"{url}: {error}") from error
        except urllib3.exceptions.TimeoutError as error:
            raise SlowRetrievalError(f"{url}: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(f"{url}: {error}") from error
        if response.status >= HTTP_REDIRECT:
            response.close()
            raise DownloadHTTPError(f"{url}: status {response.status}", response.status)
        return self._chunks(url, response)

    def _chunks(self, url: str, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            # `read1` returns what one packet brought; `stream` would wait until a whole chunk is there.
            while chunk := response.read1(CHUNK_BYTES):
                self.fetched_bytes += len(chunk)
                yield chunk
                self._check_time(url)
        except urllib3.exceptions.TimeoutError as error:
            raise SlowRetrievalError(f"{url}: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(f"{url}: {error}") from error
        finally:
            response.close()

    def _check_time(self, url: str) -> None:
        if self._monotonic_s() >= self._until_s:
            raise SlowRetrievalError(f"{url}: the time for everything is used up")
