"""`fieldlake contract`: what it says of a document and what it lets through, without a running stack."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec.structs import replace

from contracts.contract import Contract
from contracts.rules import AllOf, Comparison, Condition, Rule
from infra.bundles.documents import documents_dir, read_contracts
from infra.cli.contract_text import history, told
from infra.cli.main import run

CLICKS = documents_dir() / "clicks.odcs.yaml"
CONTRACT = next(contract for contract in read_contracts() if contract.id == "clicks")
RULE = Rule(
    "slow", 1, "Slow", "tests", "customer",
    AllOf((Condition("clicks", (Comparison("dwell_s", "gt", 60),)),), 60), "i", "a",
)  # fmt: skip


def document(folder: Path, version: str, **names: str) -> Path:
    """Write the clicks document with another version and some fields renamed (to an empty name: dropped)."""
    content: dict[str, Any] = yaml.safe_load(CLICKS.read_text(encoding="utf-8"))
    content["version"] = version
    fields = content["schema"][0]["properties"]
    content["schema"][0]["properties"] = [
        {**entry, "name": names.get(entry["name"], entry["name"])} for entry in fields if names.get(entry["name"]) != ""
    ]
    path = folder / "clicks.odcs.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def renamed(version: str, before: str, after: str) -> Contract:
    fields = tuple(replace(f, name=after) if f.name == before else f for f in CONTRACT.fields)
    return replace(CONTRACT, version=version, fields=fields)


def test_diff_says_what_a_document_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = document(tmp_path, "1.1.0", dwell_s="dwell", platform="")
    assert run(["contract", "diff", str(newer), "--against", str(CLICKS)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "clicks 1.0.0 -> 1.1.0: 2 changes"
    assert said[1] == "! drops platform, string"
    assert any(line.startswith("    table   the column platform is gone") for line in said)
    assert any(line == "  renames dwell_s to dwell" for line in said)
    assert said[-1].startswith("  devices: devices send 1.0.0 until a bundle carries 1.1.0")


def test_diff_says_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = document(tmp_path, "1.1.0", dwell_s="dwell")
    assert run(["contract", "diff", str(newer), "--against", str(CLICKS), "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert (found["contract"], found["from"], found["to"]) == ("clicks", "1.0.0", "1.1.0")
    (change,) = found["changes"]
    assert (change["kind"], change["before"], change["after"], change["need"]) == (
        "renamed",
        "dwell_s",
        "dwell",
        "free",
    )
    assert "queries that say dwell_s fail" in change["effects"]["table"]


def test_a_rule_in_force_is_part_of_what_is_said() -> None:
    said = told(CONTRACT, renamed("1.1.0", "dwell_s", "dwell"), [RULE])
    assert "! renames dwell_s to dwell" in said
    assert "rules in force that feel it: slow" in said
    assert "a condition on dwell_s never holds for rows of the new version" in said
    assert told(CONTRACT, CONTRACT, ()) == "clicks 1.0.0 -> 1.0.0: nothing changes"
    assert told(None, CONTRACT, ()).startswith("clicks 1.0.0: the first version: 8 fields")


def test_check_refuses_until_what_it_names_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer = document(tmp_path, "1.0.0", platform="", session_id="")
    check = ["contract", "check", str(newer), "--against", str(CLICKS)]
    assert run(check) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert any("1.0.0 is published: give it a higher one" in line for line in lines)
    assert run([*check, "--accept", "dropped"]) == 1
    newer = document(tmp_path, "1.1.0", platform="", session_id="")
    assert run([*check, "--accept", "dropped"]) == 0
    assert "may be published" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["check", str(CLICKS), "--against", str(CLICKS), "--accept", "everything"],
            2,
            "expected one of added, dropped",
        ),
        (["diff", "no-such.odcs.yaml", "--against", str(CLICKS)], 1, "expected a contract document, found no file"),
        (["diff", str(CLICKS), "--against", str(documents_dir() / "telemetry.odcs.yaml")], 1, "its id is its identity"),
    ],
)
def test_what_cannot_be_compared_gets_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["contract", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_history_tells_when_each_version_came_and_what_it_changed() -> None:
    newer = renamed("1.10.0", "dwell_s", "停留")
    assert history([(CONTRACT, 1_760_000_000_000), (newer, 1_760_000_060_000)]).splitlines() == [
        "2025-10-09T08:53:20Z  1.0.0       8 fields, table lake_b.behaviour.clicks",
        "2025-10-09T08:54:20Z  1.10.0      renames dwell_s to 停留",
    ]
