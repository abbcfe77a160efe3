"""Scripted visits: what a customer does when a rule should notice it, and the near misses that it must pass over.

Users and sessions are named `scripted-...`, so that nobody takes them for the data set's own. Three patterns are
played:

- the EMC test report is downloaded, read for more than 120 s and printed: rule `emc-report-sample`;
- near misses of that: read too briefly, not printed, not downloaded, another document, two people, days apart;
- terms of the catalogue are marked, IP67 and CANopen three times together: rule `ip67-canopen-consultant`. These lie
  at the end of the record, for the rule is applied while the replay runs. Near misses mark other terms, or only one.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from msgspec import Struct

from infra.datasets.replay import US_PER_DAY, US_PER_S

REPORT: Final = "emc-test-report"
REPORT_IN_CHINESE: Final = "电磁兼容测试报告"
SAMPLE_RULE: Final = "emc-report-sample"
CONSULTANT_RULE: Final = "ip67-canopen-consultant"
DOWNLOAD: Final = "document_download"
DWELL: Final = "document_dwell"
PRINT: Final = "document_print"
ANNOTATE: Final = "annotate"
VISITS_PER_SCRIPT: Final = 6
USER_PREFIX: Final = "scripted-"
# Longer than any rule may remember a subject.
DAYS_APART: Final = 8


class Act(Struct, frozen=True):
    """One act of a script: `pause_s` after the one before, by person number `person` of the visit."""

    event: str
    object: str
    pause_s: int
    dwell_s: float | None = None
    person: int = 0


class Script(Struct, frozen=True):
    """A kind of visit; `rule_id` names the rule that it fires once, None if no rule may fire."""

    name: str
    acts: tuple[Act, ...]
    rule_id: str | None = None
    at_end: bool = False


class VisitEvent(Struct, frozen=True):
    """One act on the record's time line."""

    user_id: str
    session_id: str
    event: str
    object: str
    dwell_s: float | None
    occurred_at_us: int


class VisitTruth(Struct, frozen=True):
    """What the rules must say of one scripted user: exactly one decision of rule `rule_id`, or none at all (None)."""

    user_id: str
    session_id: str
    script: str
    rule_id: str | None


_DOWNLOAD: Final = Act(DOWNLOAD, REPORT, 20)
_READ: Final = Act(DWELL, REPORT, 200, dwell_s=180.5)
_PRINT: Final = Act(PRINT, REPORT, 15)

SCRIPTS: Final = (
    Script("report-read-and-printed", (_DOWNLOAD, _READ, _PRINT), SAMPLE_RULE),
    Script(
        "report-searched-in-chinese",
        (Act("search", REPORT_IN_CHINESE, 5), _DOWNLOAD, Act(DWELL, REPORT, 130, dwell_s=120.1), _PRINT),
        SAMPLE_RULE,
    ),
    Script("near-miss-read-briefly", (_DOWNLOAD, Act(DWELL, REPORT, 70, dwell_s=60.0), _PRINT)),
    Script("near-miss-exactly-120-s", (_DOWNLOAD, Act(DWELL, REPORT, 130, dwell_s=120.0), _PRINT)),
    Script("near-miss-not-printed", (_DOWNLOAD, _READ)),
    Script("near-miss-not-downloaded", (_READ, _PRINT)),
    Script(
        "near-miss-other-document",
        (
            Act(DOWNLOAD, REPORT_IN_CHINESE, 20),
            Act(DWELL, REPORT_IN_CHINESE, 200, dwell_s=180.5),
            Act(PRINT, REPORT_IN_CHINESE, 15),
        ),
    ),
    Script(
        "near-miss-two-people",
        (_DOWNLOAD, Act(DWELL, REPORT, 200, dwell_s=180.5, person=1), Act(PRINT, REPORT, 15, person=1)),
    ),
    Script("near-miss-days-apart", (_DOWNLOAD, _READ, Act(PRINT, REPORT, DAYS_APART * 86_400))),
    Script(
        "terms-marked",
        (Act(ANNOTATE, "IP67", 10), Act(ANNOTATE, "CANopen", 40), Act(ANNOTATE, "IP67", 40)),
        CONSULTANT_RULE,
        at_end=True,
    ),
    Script("near-miss-one-term", (Act(ANNOTATE, "IP67", 10), Act(ANNOTATE, "IP67", 40)), at_end=True),
    Script(
        "near-miss-other-terms",
        (Act(ANNOTATE, "IP54", 10), Act(ANNOTATE, "防护等级", 40), Act(ANNOTATE, "RS-485", 40)),
        at_end=True,
    ),
)


def play_visits(first_us: int, last_us: int, seed: int) -> tuple[list[VisitEvent], list[VisitTruth]]:
    """Return every scripted event by time, and the truth per scripted user.

    Visits begin at random moments between `first_us` and `last_us`, early enough to end before it; those marked
    `at_end` begin on the day after.
    """
    rng = Random(seed)
    latest_us = max(first_us, last_us - (DAYS_APART + 1) * US_PER_DAY)
    events: list[VisitEvent] = []
    truth: list[VisitTruth] = []
    visits = [script for script in SCRIPTS for _ in range(VISITS_PER_SCRIPT)]
    for number, script in enumerate(visits, start=1):
        begin_us = last_us + rng.randrange(US_PER_DAY) if script.at_end else rng.randint(first_us, latest_us)
        played = _play(script, number, begin_us)
        events.extend(played)
        truth.extend(_truth(script, played))
    return sorted(events, key=lambda event: (event.occurred_at_us, event.user_id)), truth


def _play(script: Script, number: int, begin_us: int) -> list[VisitEvent]:
    events = []
    now_us = begin_us
    for act in script.acts:
        now_us += act.pause_s * US_PER_S
        name = f"{number:04d}" if act.person == 0 else f"{number:04d}-{act.person}"
        events.append(
            VisitEvent(f"{USER_PREFIX}{name}", f"{USER_PREFIX}s{name}", act.event, act.object, act.dwell_s, now_us)
        )
    return events


def _truth(script: Script, played: Sequence[VisitEvent]) -> list[VisitTruth]:
    people = dict.fromkeys((event.user_id, event.session_id) for event in played)
    return [VisitTruth(user, session, script.name, script.rule_id) for user, session in people]
