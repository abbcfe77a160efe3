"""`fieldlake rules validate` and `test`: what they say of documents, without a running stack."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.cli.main import run
from infra.cli.rule_documents import RULE_BYTES_MAX
from infra.setup.paths import repo_root

RULES = repo_root() / "flink_jobs" / "triggers" / "rules"
BUDGET = RULES / "budget-concern-cost-package.json"


def document(folder: Path, **changes: Any) -> Path:
    """Write a shipped document with some of its keys changed."""
    path = folder / "rule.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(BUDGET.read_bytes()) | changes))
    return path


def test_a_good_document_says_what_it_listens_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "validate", str(BUDGET)]) == 0
    said = capsys.readouterr().out
    assert said == "rule budget-concern-cost-package version 1: good; listens to visits; 5 examples\n"


def test_all_shipped_documents_come_out_as_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(map(str, RULES.glob("*.json")))
    assert run(["rules", "validate", *files]) == run(["rules", "test", *files]) == 0
    assert capsys.readouterr().out.count("as expected") == len(files)


def test_a_field_that_no_contract_has_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    when = msgspec.json.decode(BUDGET.read_bytes())["when"]
    when["condition"]["where"][0]["field"] = "remark"
    assert run(["rules", "validate", str(document(tmp_path, when=when))]) == 1
    error = capsys.readouterr().err
    assert "rule 'budget-concern-cost-package' version 1: contract visits, field 'remark': expected one of" in error


def test_a_document_that_is_none_is_named_with_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "validate", str(document(tmp_path, version=0))]) == 1
    error = capsys.readouterr().err
    assert "rule.json: rule 'budget-concern-cost-package' version 0" in error
    assert "$.version" in error
    (tmp_path / "rule.json").write_bytes(b" " * (RULE_BYTES_MAX + 1))
    assert run(["rules", "test", str(tmp_path / "rule.json")]) == 1
    assert f"at most {RULE_BYTES_MAX} bytes" in capsys.readouterr().err


def test_an_example_that_comes_out_otherwise_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"title": "错", "given": [{"contract": "visits", "at_s": 0, "fields": {"note": "比价"}}], "expect": []}
    path = document(tmp_path, examples=[wrong])
    assert run(["rules", "test", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == "rule budget-concern-cost-package version 1: 0 of 1 example as expected\n"
    assert "example '错': expected no decision, found one about somebody at 0 s" in said.err
    assert run(["rules", "apply", str(path)]) == 1
    assert "example '错'" in capsys.readouterr().err, "nothing whose examples come out otherwise is published"
