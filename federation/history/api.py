"""The HTTP surface of the history. `/ready` and the schema are open; what carries data wants the bearer token."""

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from litestar import Litestar, MediaType, Request, Response, get
from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException, HTTPException, NotAuthorizedException, NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import Parameter
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Struct

from federation.errors import StoreUnavailableError
from federation.history.follower import HistoryFollower
from federation.history.metrics import RequestMetrics
from federation.history.model import History

ASSET_ID_CHARS_MAX: Final = 64  # characters, as in the contract
_TIME_EXAMPLE: Final = "2026-11-22T08:00:00Z"


class Refusal(Struct, frozen=True):
    """Why there is no answer, in one sentence."""

    detail: str


class Readiness(Struct, frozen=True):
    """Whether questions can be answered, and from which snapshot; None while the table is missing or empty.

    `current` is false while the table cannot be followed. Why is in the log: anybody may ask this.
    """

    ready: bool
    snapshot_id: int | None
    current: bool


def parse_as_of(text: str | None) -> datetime | None:
    """Return the moment in UTC; raises ClientException (400) that says what was expected."""
    if text is None:
        return None
    expected = f"as_of: expected a time with its offset from UTC such as {_TIME_EXAMPLE}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "; a '+' must be sent as %2B" if re.search(r" \d\d:?\d\d$", text) else ""
        raise ClientException(f"{expected}, found {text[:40]!r}{hint}") from None
    if moment.tzinfo is None:
        raise ClientException(f"{expected}, found {text[:40]!r} without an offset")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ClientException(f"{expected}, found {text[:40]!r}, outside the years 1 to 9999") from None


def create_app(follower: HistoryFollower, token: str) -> Litestar:
    """Return the application; `follower` is refreshed by the caller."""
    metrics = RequestMetrics()

    @get("/v1/assets/{asset_id:str}/history", summary="Service record of one asset", guards=[_bearer(token)])
    async def asset_history(
        asset_id: Annotated[str, Parameter(description="Machine.")],
        as_of: Annotated[
            str | None,
            Parameter(description=f"Record as known by events up to this time, e.g. {_TIME_EXAMPLE}; default: all."),
        ] = None,
    ) -> History:
        if len(asset_id) > ASSET_ID_CHARS_MAX:
            raise ClientException(f"asset id: expected at most {ASSET_ID_CHARS_MAX} characters, found {len(asset_id)}")
        moment = parse_as_of(as_of)
        if follower.resident(asset_id):
            found = follower.history(asset_id, moment)
        else:
            found = await asyncio.to_thread(follower.history, asset_id, moment)
        if found is None:
            raise NotFoundException(f"asset {asset_id!r} has no entry in the service history")
        return found

    @get("/ready", summary="Whether questions can be answered")
    async def ready() -> Response[Readiness]:
        status = follower.status()
        body = Readiness(status.following, status.snapshot_id, status.trouble is None)
        return Response(body, status_code=200 if status.following else 503)

    @get("/metrics", summary="Counters, Prometheus text", media_type=MediaType.TEXT, guards=[_bearer(token)])
    async def metrics_text() -> str:
        return metrics.render(follower.status())

    return Litestar(
        [asset_history, ready, metrics_text],
        openapi_config=OpenAPIConfig(
            title="Fieldlake history", version="1", path="/schema", render_plugins=[JsonRenderPlugin()]
        ),
        middleware=[_measured(metrics)],
        exception_handlers={HTTPException: _refuse, StoreUnavailableError: _unavailable},
        request_max_body_size=0,
        logging_config=None,
    )


def _bearer(token: str) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    expected = f"Bearer {token}".encode()

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        # Compared as bytes in constant time: how long a wrong token takes says nothing about the right one.
        given = connection.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, expected):
            raise NotAuthorizedException("expected the header 'Authorization: Bearer <token>' with a valid token")

    return guard


def _measured(metrics: RequestMetrics) -> Callable[[ASGIApp], ASGIApp]:
    def middleware(app: ASGIApp) -> ASGIApp:
        async def measure(scope: Scope, receive: Receive, send: Send) -> None:
            begin = time.perf_counter()

            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seconds = time.perf_counter() - begin
                    metrics.count(message["status"], seconds)
                    # A reader sees how much of its wait was ours; the unit is that of the header, milliseconds.
                    timing = (b"server-timing", f"app;dur={seconds * 1_000:.3f}".encode())
                    message["headers"] = [*message["headers"], timing]
                await send(message)

            await app(scope, receive, counted)

        return measure

    return middleware


def _refuse(request: Request[Any, Any, Any], error: HTTPException) -> Response[Refusal]:
    headers = {"WWW-Authenticate": "Bearer"} if error.status_code == 401 else None
    return Response(Refusal(error.detail), status_code=error.status_code, headers=headers)


def _unavailable(request: Request[Any, Any, Any], error: StoreUnavailableError) -> Response[Refusal]:
    return Response(Refusal(str(error)), status_code=503, headers={"Retry-After": "1"})
