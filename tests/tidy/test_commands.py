"""Every developer command is listed with a sentence and sets itself up."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def phony() -> list[str]:
    (line,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    return str(line).split()


def test_help_lists_every_command_with_a_sentence() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    listed = dict(re.findall(r"^make (\S+) +(.+)$", shown, re.MULTILINE))
    assert sorted(listed) == sorted(phony())
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in listed.values())


def test_every_command_but_help_and_clean_sets_itself_up() -> None:
    rules = dict(re.findall(r"^([a-z]+):(.*?) ## ", MAKEFILE, re.MULTILINE))
    assert {name for name, needs in rules.items() if needs.strip() != "setup"} == {"help", "setup", "clean"}


def test_the_outside_entry_is_the_test_command_and_nothing_more() -> None:
    entry = ROOT / ".ci" / "run"
    assert os.access(entry, os.X_OK)
    assert entry.read_text() == "#!/usr/bin/env bash\nexec make test\n"


def test_bench_without_a_name_says_what_was_expected() -> None:
    # `-o setup`: without it the test would bring the environments in line with this tree's requirement files, and they
    # may be shared with other trees that are being tested.
    result = subprocess.run(["make", "-o", "setup", "bench"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "expected NAME=<benchmark>, for example: make bench NAME=spine" in result.stderr
