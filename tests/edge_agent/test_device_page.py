"""What the page on operating a device says is what the code has."""

import re
from pathlib import Path

import pytest

from edge_agent.__main__ import COMMANDS
from edge_agent.core.folding import LINE_CHARS_MAX, LINES_MAX, SAME_MAX
from edge_agent.core.metrics import AGENT_METRICS, Metrics
from edge_agent.logs import FILE_BYTES_MAX, FILES_MAX
from edge_agent.operating import commands, doctor
from edge_agent.operating.status import CERTIFICATE_S, LAG_S, PSS_MB_MAX, SILENT_S
from tests.edge_agent.plant import ROOT, contract

PAGE = (ROOT / "docs" / "device.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Return the table under a head, cell by cell."""
    (_, _, rest) = PAGE.partition(head + "\n")
    lines = rest.splitlines()[1:]
    table = lines[: next(place for place, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_metric_is_in_the_table_as_the_contract_has_it() -> None:
    fields = contract(AGENT_METRICS).fields
    assert rows("| metric | unit | meaning |") == [[f"`{f.name}`", f.unit or "", f.description] for f in fields]
    assert [f.name for f in fields] == list(Metrics.__struct_fields__)


def test_every_check_of_the_doctor_is_in_the_table() -> None:
    named = [row[0].strip("`") for row in rows("| check | what is looked at |")]
    assert named == ["configuration", *(name if name != "sources" else "source NAME" for name in doctor.CHECKS)]


def test_every_check_of_the_status_is_in_the_table() -> None:
    source = (ROOT / "edge_agent" / "operating" / "status.py").read_text(encoding="utf-8")
    checks = set(re.findall(r'(?:Finding|ok)\("(\w+)"', source))
    assert {row[0].strip("`") for row in rows("| check | bad when | only a warning |")} == checks


@pytest.mark.parametrize(
    "said",
    [
        f"silent for {SILENT_S:.0f} s",
        f"{LAG_S / 60:.0f} minutes",
        f"above {PSS_MB_MAX:.0f} MB",
        f"beyond {LINES_MAX} lines",
        f"{LINE_CHARS_MAX:,} characters",
        {4: "four of\n1 MiB"}[FILES_MAX * FILE_BYTES_MAX // 2**20],
        {5: "five times a minute"}[SAME_MAX],
        {2: "within two days"}[int(CERTIFICATE_S // 86_400)],
    ],
)
def test_limits_on_the_page_are_those_of_the_code(said: str) -> None:
    assert said in PAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_on_the_page_and_answers_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"fieldlake-edge {command}" in PAGE
    with pytest.raises(SystemExit) as ended:
        commands.main([command, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert targets
    assert [t for t in targets if not Path(ROOT / "docs" / t).exists()] == []
