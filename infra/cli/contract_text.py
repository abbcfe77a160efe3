"""Versions of contracts as text: what a change will do, and what was published when."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from contracts.consequences import Outlook, on_devices, outlook, summary
from contracts.contract import Contract
from contracts.evolution import Need
from contracts.rules import Rule

MARKS = {Need.FREE: " ", Need.ACCEPTED: "!", Need.REFUSED: "x"}


def told(old: Contract | None, new: Contract, rules: Sequence[Rule]) -> str:
    """Return what a new version does, a block per change; `!` must be accepted, `x` is refused."""
    if old is None:
        return f"{new.id} {new.version}: the first version: {summary(None, new)}"
    found = outlook(old, new, tuple(rules))
    count = f"{len(found)} change{'' if len(found) == 1 else 's'}" if found else "nothing changes"
    lines = [f"{new.id} {old.version} -> {new.version}: {count}"]
    for entry in found:
        lines.append(f"{MARKS[entry.change.need]} {entry.says}")
        lines += [f"    {effect.on:<8}{effect.says}" for effect in entry.effects]
    if found:
        lines.append(f"  devices: {on_devices(old, new)}")
    return "\n".join(lines)


def told_json(old: Contract | None, new: Contract, rules: Sequence[Rule]) -> str:
    """Return the same as JSON."""
    found: tuple[Outlook, ...] = () if old is None else outlook(old, new, tuple(rules))
    document: dict[str, Any] = {
        "contract": new.id,
        "from": None if old is None else old.version,
        "to": new.version,
        "changes": [
            msgspec.to_builtins(entry.change)
            | {"says": entry.says, "effects": {effect.on: effect.says for effect in entry.effects}}
            for entry in found
        ],
        "devices": None if old is None else on_devices(old, new),
    }
    return msgspec.json.format(msgspec.json.encode(document)).decode()


def history(versions: Sequence[tuple[Contract, int]]) -> str:
    """Return a line per version: when it was published (Unix ms), and what it changed."""
    lines = []
    before: Contract | None = None
    for contract, at_ms in versions:
        at = dt.datetime.fromtimestamp(at_ms / 1_000, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        lines.append(f"{at}  {contract.version:<10}  {summary(before, contract)}")
        before = contract
    return "\n".join(lines)
