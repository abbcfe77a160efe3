"""From a replayed file to a row, an answer and a decision, through the command line that people use."""

import csv
import io
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from infra.cli.decision_log import read_decisions
from infra.demo.decisions import expected_decisions, judge_decisions
from infra.demo.fleet import Member, members_of
from infra.demo.material import Material
from infra.demo.tables import LakeReader
from infra.demo.verdict import judge
from infra.fleet.agent import AgentProcess, Replay, prepare
from infra.launcher.endpoints import Endpoints
from infra.provision import HELD_BACK_RULES
from infra.setup.paths import lake_env, repo_root
from tests.waiting import eventually

pytestmark = pytest.mark.stack

COMMAND_WITHIN_S = 180
DRAINED_WITHIN_S = 180
PER_CONTRACT = 2  # devices of each contract: both web collectors, on which the scripted visits lie


def fieldlake(endpoints: Endpoints, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "FIELDLAKE_STATE_DIR": endpoints.state_dir,
        "FIELDLAKE_PORT_BASE": str(endpoints.port_base),
    }
    return subprocess.run(
        [lake_env() / "bin" / "fieldlake", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )


@pytest.fixture(scope="module")
def members(material: Material) -> list[Member]:
    found = members_of(material.manifest, material.datasets_dir, lambda _contract: 1.0)
    contracts = sorted({member.contract for member in found})
    return [m for name in contracts for m in [m for m in found if m.contract == name][:PER_CONTRACT]]


@pytest.fixture(scope="module")
def held_back_rule(endpoints: Endpoints) -> str:
    """A third rule, applied while everything runs."""
    file = repo_root() / "flink_jobs" / "triggers" / "rules" / f"{HELD_BACK_RULES[0]}.json"
    done = fieldlake(endpoints, "rules", "apply", str(file))
    assert done.returncode == 0, done.stderr
    return HELD_BACK_RULES[0]


@pytest.fixture(scope="module")
def ledgers(
    endpoints: Endpoints, material: Material, members: list[Member], held_back_rule: str
) -> Iterator[dict[str, dict[str, Any]]]:
    """What every agent of a small fleet ended with; one of them was killed and started again on the way."""
    agents = {m.device: AgentProcess(prepare(endpoints, material.bundle_dir, _replay(m))) for m in members}
    for agent in agents.values():
        agent.start()
    try:
        victim = agents[members[0].device]
        eventually(lambda: victim.status().get("batches_published") or None, "the victim has published")
        victim.kill()
        victim.start()
        yield {device: agent.wait(DRAINED_WITHIN_S) for device, agent in agents.items()}
    finally:
        for agent in agents.values():
            agent.terminate(5)


def _replay(member: Member) -> Replay:
    # Devices of both profiles; the collector of purchases goes over to the full one when it replays a second time.
    return Replay(
        member.device, member.contract, member.file, profile="lite" if member.contract == "purchases" else "full"
    )


def test_every_row_is_there_once_and_every_event_is_explained(
    lake: LakeReader, material: Material, members: list[Member], ledgers: dict[str, dict[str, Any]]
) -> None:
    replays = [(m.contract, m.device, m.file) for m in members]
    verdict = judge(lake, material.bundle, material.bundle_dir, replays, ledgers)
    assert verdict.holds, verdict
    assert set(verdict.tables) == {m.contract for m in members}


def test_scripted_visits_lead_to_their_decisions_once(
    endpoints: Endpoints, material: Material, ledgers: dict[str, dict[str, Any]], lake: LakeReader
) -> None:
    expected = expected_decisions(material.datasets_dir)

    def settled() -> bool:
        made = list(read_decisions(endpoints.kafka.bootstrap, follow=False))
        return judge_decisions(expected, made) == ((), ())

    eventually(settled, "every scripted decision, and no other")
    made = {d.id for d in read_decisions(endpoints.kafka.bootstrap, follow=False)}
    stored = eventually(
        lambda: rows if len(rows := _ids(lake)) >= len(made) else None, "as many rows as decisions in their table"
    )
    assert sorted(stored) == sorted(made)


def _ids(lake: LakeReader) -> list[str]:
    found: list[str] = lake.read("lake_b", "behaviour.decisions")["decision_id"].to_pylist()
    return found


def test_a_second_replay_of_the_same_file_adds_nothing(
    endpoints: Endpoints,
    material: Material,
    members: list[Member],
    ledgers: dict[str, dict[str, Any]],
    lake: LakeReader,
) -> None:
    member = next(m for m in members if m.contract == "purchases")
    before = lake.read("lake_b", "behaviour.purchases").num_rows
    agent = AgentProcess(prepare(endpoints, material.bundle_dir, Replay(member.device, member.contract, member.file)))
    agent.start()
    again = agent.wait(DRAINED_WITHIN_S)
    assert again["streams"]["purchases"] == ledgers[member.device]["streams"]["purchases"]
    assert lake.read("lake_b", "behaviour.purchases").num_rows == before


def test_the_commands_answer_about_it(
    endpoints: Endpoints, members: list[Member], ledgers: dict[str, dict[str, Any]]
) -> None:
    machine = next(m for m in members if m.contract == "telemetry")
    stream = ledgers[machine.device]["streams"]["telemetry"]
    counted = fieldlake(
        endpoints, "sql", f"SELECT count(*) AS n FROM lake_a.field.telemetry WHERE origin = '{machine.device}'",
        "--format", "csv",
    )  # fmt: skip
    assert list(csv.reader(io.StringIO(counted.stdout))) == [["n"], [str(stream["kept"])]], counted.stderr
    told = json.loads(fieldlake(endpoints, "ledger", "--device", machine.device, "--json").stdout)
    fates = {(row["stream"], row["fate"]): row["events"] for row in told if row["stream"] == "telemetry"}
    assert fates[("telemetry", "kept")] == stream["kept"]
    assert fates[("telemetry", "aggregated")] == stream["aggregated"]
    status = json.loads(fieldlake(endpoints, "status", "--json").stdout)
    assert {part["name"] for part in status["parts"] if not part["ready"]} == set()


def test_the_history_of_an_asset_is_what_the_tablets_sent(
    endpoints: Endpoints, members: list[Member], ledgers: dict[str, dict[str, Any]]
) -> None:
    files = [m.file for m in members if m.contract == "service_history"]
    entries = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    superseded = {entry["supersedes"] for entry in entries if "supersedes" in entry}
    asset = next(e["asset_id"] for e in entries if e["entry_id"] in superseded)
    wanted = sorted(e["entry_id"] for e in entries if e["asset_id"] == asset and e["entry_id"] not in superseded)

    def answered() -> bool:
        document = json.loads(fieldlake(endpoints, "history", asset, "--json").stdout or "{}")
        return sorted(entry["entry_id"] for entry in document.get("entries", [])) == wanted

    eventually(answered, f"the history of {asset}")
    assert "complete up to" in fieldlake(endpoints, "history", asset).stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sql", "SELEC 1"), "mismatched input"),
        (("history", "no-such-asset"), "no-such-asset"),
        (("ledger", "--device", "not a name"), "expected a device id"),
        (("replay", "/nonexistent", "--contract", "purchases", "--device", "x"), "expected a file of events"),
        (("rules", "apply", "/nonexistent"), "expected a rule document"),
    ],
)
def test_a_wrong_argument_gets_one_line(endpoints: Endpoints, words: tuple[str, ...], expected: str) -> None:
    done = fieldlake(endpoints, *words)
    assert done.returncode != 0
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
