"""What came of a pull, as the lake has it: its answer, and its rows as they arrive."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.contract import Contract
from contracts.errors import OperatorMustActError, RetrySafeError
from contracts.offshoots import PULLED_SUFFIX
from contracts.pulls import Outcome, PullRequest

LOOK_S: Final = 1.0  # s between two looks at the lake, each a query of some 0.3 s
LATE_S: Final = 60.0  # s after a request has expired; a device that began in time may need them

# Of the device alone: another one could write rows under this id.
ROWS_SQL: Final = "SELECT count(*) AS events FROM {table} WHERE pull_id = '{pull}' AND origin = '{device}'"
ANSWER_SQL: Final = """
SELECT outcome, reason, examined, matched, sent, missing, missing_ranges, held_since
  FROM lake_a.ops.pulls WHERE pull_id = '{pull}' AND origin = '{device}'
"""

Ask = Callable[[str], list[dict[str, Any]]]


class Told(Struct, frozen=True):
    """The answer, and how many of its rows the lake has. `outcome` is None until there is one."""

    device: str
    pull: str
    rows: int
    outcome: str | None = None
    reason: str | None = None
    examined: int | None = None
    matched: int | None = None
    sent: int | None = None
    missing: int | None = None
    missing_ranges: str | None = None
    held_since: str | None = None

    @property
    def is_whole(self) -> bool:
        """Say whether the answer and all of its rows are there."""
        return self.outcome is not None and self.rows == self.sent

    def require(self) -> None:
        """Raise OperatorMustActError when the pull was not carried out."""
        if self.outcome in (Outcome.REFUSED.value, Outcome.EXPIRED.value, Outcome.WITHDRAWN.value):
            why = self.reason or f"the device heard of it too late, or it was taken back: {self.outcome}"
            raise OperatorMustActError(f"{self.device}: {why}")


class Following:
    """Looks at the lake until a pull is answered."""

    def __init__(self, device: str, contract: Contract, request: PullRequest, ask: Ask) -> None:
        self._device = device
        self._request = request
        self._ask = ask
        names = {"table": table_of(contract), "pull": request.id, "device": device}
        self._statements = ANSWER_SQL.format(**names), ROWS_SQL.format(**names)

    def look(self) -> Told:
        """Return what the lake has now."""
        answers, counts = map(self._ask, self._statements)  # in this order: the rows of an answer came before it
        answer = dict(answers[0]) if answers else {}
        if answer.get("held_since") is not None:
            answer["held_since"] = answer["held_since"].isoformat()
        return Told(self._device, self._request.id, counts[0]["events"], **answer)

    def how_to_look(self) -> str:
        """Return what to ask for the answer later."""
        return (
            f"SELECT * FROM lake_a.ops.pulls WHERE pull_id = '{self._request.id}'\n"
            f"the request is at the broker until it expires; nobody needs to wait for it"
        )

    def wait(
        self,
        now_s: Callable[[], float],
        sleep: Callable[[float], None],
        say: Callable[[str], None],
        is_online: Callable[[], bool | None],
    ) -> Told:
        """Return the answer once all of its rows are there. Raises RetrySafeError when none came in time."""
        until_s = self._request.expires_at_ms / 1_000 + LATE_S
        said = ""
        while True:
            told = self.look()
            if told.is_whole:
                return told
            text = self._progress(told, is_online())
            if text != said:
                said = text
                say(text)
            if now_s() >= until_s:
                raise RetrySafeError(f"pull {told.pull}: expired without a whole answer: {text}: ask again")
            sleep(LOOK_S)

    def _progress(self, told: Told, is_online: bool | None) -> str:
        if told.outcome is not None:
            return f"{told.outcome}, {told.rows:,} of {told.sent:,} rows are in the lake"
        if told.rows:
            return f"{told.rows:,} rows are in the lake"
        if is_online:
            return f"{self._device} is connected, no row yet"
        return f"{self._device} is away, it will hear of the pull when it comes"


def table_of(contract: Contract) -> str:
    """Return the table of a contract's pulled rows."""
    return f"{contract.catalog}.{contract.table}{PULLED_SUFFIX}"


def rows_sql(contract: Contract, request: PullRequest) -> str:
    """Return the statement that shows the rows of a pull."""
    return f"SELECT * FROM {table_of(contract)} WHERE pull_id = '{request.id}' ORDER BY source_seq"


def rendered(told: Told, contract: Contract) -> str:
    """Return the answer in words."""
    if told.outcome not in (Outcome.ANSWERED.value, Outcome.LIMITED.value):
        return f"pull {told.pull}: {told.outcome}"
    lines = [
        f"pull {told.pull}: {told.outcome}: {told.sent:,} rows of {told.matched:,} that match, "
        f"{told.examined:,} events of that time looked at"
    ]
    if told.outcome == Outcome.LIMITED.value:
        lines.append("there may be more: the request allowed no more rows or bytes")
    if told.missing:
        lines.append(f"no longer on the device: up to {told.missing:,} events, numbers {told.missing_ranges}")
    if told.held_since is not None:
        lines.append(f"the device has deleted what is older than {told.held_since}")
    lines.append(f"SELECT * FROM {table_of(contract)} WHERE pull_id = '{told.pull}' ORDER BY source_seq")
    return "\n".join(lines)


def tell_json(request: PullRequest, told: Told | None, statement: str) -> str:
    """Return the answer as JSON, only the request's id without one."""
    document = {"pull": request.id} | (msgspec.structs.asdict(told) if told is not None else {}) | {"sql": statement}
    return msgspec.json.format(msgspec.json.encode(document)).decode()
