"""Render `docs/reference.md` and the JSON Schema of edge rules from the code, and the README's figures from the newest
benchmark result.

`python -m infra.reference` writes all of them; a test compares them with what this module renders.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from typer.main import get_command

from contracts import edge_rules, rules
from contracts.contract import SYSTEM_COLUMNS, Contract
from contracts.topics import KAFKA_TOPICS
from edge_agent.config import (
    AgentConfig,
    FileSource,
    HttpSource,
    MqttSource,
    RepositoryBundles,
    SocketSource,
    Subscription,
)
from edge_agent.updating.config import UpdatingConfig
from federation.config import FederationConfig
from flink_jobs.triggers.config import PreselectConfig, TriggersConfig
from gateway.bundles.config import BundlesConfig
from gateway.config import GatewayConfig
from gateway.enrolment.config import EnrolmentConfig
from infra.bundles.documents import read_contracts
from infra.cli.main import build
from infra.demo.figures import REACH, reached
from infra.launcher.settings import (
    INGEST_WORKERS_MAX,
    INGEST_WORKERS_VARIABLE,
    PORT_BASE_VARIABLE,
    PORT_OFFSETS,
    STATE_DIR_VARIABLE,
)
from infra.setup.paths import repo_root
from lakehouse.config import LakeConfig
from lakehouse.mirror.config import MirrorConfig
from lakehouse.quality.config import QualityConfig

FIGURES_BEGIN: Final = "<!-- figures -->"
FIGURES_END: Final = "<!-- /figures -->"
CONFIGS: Final[dict[str, type[Struct]]] = {
    "edge_agent": AgentConfig,
    'edge_agent, a source with `"kind": "file"`': FileSource,
    'edge_agent, a source with `"kind": "socket"`': SocketSource,
    'edge_agent, a source with `"kind": "http"`': HttpSource,
    'edge_agent, a source with `"kind": "mqtt"`': MqttSource,
    "edge_agent, a subscription of such a source": Subscription,
    'edge_agent, bundles with `"kind": "repository"`': RepositoryBundles,
    "edge_agent.updating": UpdatingConfig,
    "gateway": GatewayConfig,
    "gateway.bundles": BundlesConfig,
    "gateway.enrolment": EnrolmentConfig,
    "lakehouse (ingest, maintenance)": LakeConfig,
    "lakehouse.quality": QualityConfig,
    "lakehouse.mirror": MirrorConfig,
    "flink_jobs.triggers.preselect": PreselectConfig,
    "flink_jobs.triggers job": TriggersConfig,
    "federation (history endpoint, warmer)": FederationConfig,
}
SYSTEM_MEANINGS: Final = {
    "origin": "Device or collector, by its certificate.",
    "epoch": "Grows when the origin's spool is made anew.",
    "seq": "Number of the event in its stream and epoch.",
    "contract_version": "Version of the contract that the row was checked against.",
    "sealed_at": "When the origin sealed the batch.",
}


def reference_file() -> Path:
    """Return where the page lies."""
    return repo_root() / "docs" / "reference.md"


def edge_rule_schema_file() -> Path:
    """Return where the JSON Schema of edge rules lies."""
    return repo_root() / "docs" / "edge-rule.schema.json"


def edge_rule_schema() -> str:
    """Return the JSON Schema of edge rules as text."""
    return msgspec.json.format(msgspec.json.encode(edge_rules.schema()), indent=2).decode() + "\n"


def rule_schema_file() -> Path:
    """Return where the JSON Schema of rules lies."""
    return repo_root() / "docs" / "rule.schema.json"


def rule_schema() -> str:
    """Return the JSON Schema of rules as text."""
    return msgspec.json.format(msgspec.json.encode(rules.schema()), indent=2).decode() + "\n"


def render() -> str:
    """Return the page."""
    parts = [
        "# Reference\n\nMade from the code by `python -m infra.reference`; a test compares the two.",
        "## Commands",
        *_commands(),
        "## Environment variables",
        _table(
            ("variable", "meaning"),
            [
                (f"`{STATE_DIR_VARIABLE}`", "Folder of state and logs; default `.fieldlake`."),
                (f"`{PORT_BASE_VARIABLE}`", "First of the ports; each port is this plus its offset below."),
                (f"`{INGEST_WORKERS_VARIABLE}`", f"Ingest workers that share the log, 1 to {INGEST_WORKERS_MAX}."),
            ],
        ),
        "## Ports",
        _table(("port", "offset"), [(f"`{name}`", str(offset)) for name, offset in PORT_OFFSETS.items()]),
        "## Topics of the log",
        _table(
            ("topic", "key", "value", "kept"),
            [(f"`{t.name}`", t.key, t.value, "newest of a key" if t.compacted else "by time") for t in KAFKA_TOPICS],
        ),
        "## Tables",
        "Every table begins with these columns:",
        _table(
            ("column", "type", "meaning"), [(f"`{n}`", t.value, SYSTEM_MEANINGS[n]) for n, t in SYSTEM_COLUMNS.items()]
        ),
        *(part for contract in read_contracts() for part in _contract(contract)),
        "## Configuration files",
        "One JSON file per process; unknown keys are refused.",
        *(part for name, kind in CONFIGS.items() for part in (f"### {name}", _keys(kind))),
    ]
    return "\n\n".join(parts) + "\n"


def _commands() -> Iterable[str]:
    for path, command in _walk("fieldlake", get_command(build())):
        yield f"### `{path}`"
        yield (command.help or "").strip()
        rows = []
        for parameter in command.params:
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
            rows.append((names, getattr(parameter, "help", "") or ""))
        if rows:
            yield _table(("argument or option", "meaning"), rows)
        if command.epilog:
            yield command.epilog


def _walk(path: str, command: Any) -> Iterable[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _walk(f"{path} {name}", child)
    else:
        yield path, command


def _contract(contract: Contract) -> Iterable[str]:
    yield f"### `{contract.catalog}.{contract.table}`"
    yield f"{contract.title}, contract `{contract.id}` {contract.version}. {contract.purpose}"
    rows = []
    for field in contract.fields:
        kind = field.type.value + ("" if field.required else ", may be null")
        meaning = field.description + (" Personal." if field.classification == "personal" else "")
        rows.append((f"`{field.name}`", kind + (f", {field.unit}" if field.unit else ""), meaning))
    yield _table(("column", "type", "meaning"), rows)


def _keys(kind: type[Struct], prefix: str = "") -> str:
    return _table(("key", "default"), list(_key_rows(kind, prefix)))


def _key_rows(kind: type[Struct], prefix: str) -> Iterable[tuple[str, str]]:
    for field in msgspec.structs.fields(kind):
        nested = field.type if isinstance(field.type, type) and issubclass(field.type, Struct) else None
        if nested is not None:
            yield from _key_rows(nested, f"{prefix}{field.encode_name}.")
        else:
            default = "required" if field.default is msgspec.NODEFAULT else f"`{field.default!r}`"
            yield f"`{prefix}{field.encode_name}`", default


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def readme_file() -> Path:
    """Return where the README lies."""
    return repo_root() / "README.md"


def with_figures(readme: str) -> str:
    """Return the README with the figures of `benchmarks/results/spine.json` between its two marks."""
    result = repo_root() / "benchmarks" / "results" / "spine.json"
    before, _, rest = readme.partition(FIGURES_BEGIN)
    _, _, after = rest.partition(FIGURES_END)
    shown = "No result has been recorded yet; the demo's page shows the same figures for its own run.\n"
    if result.exists():
        measured = msgspec.json.decode(result.read_bytes())
        rows = []
        for key, value in measured["figures"].items():
            aim = REACH.get(key)
            verdict = {True: "yes", False: "**no**", None: ""}[reached(key, value) if key in REACH else None]
            rows.append((f"`{key}`", f"{value:,}", f"{aim[0]} {aim[1]:g}" if aim else "", verdict))
        when = f"Commit `{measured['commit']}`, {measured['when'][:10]}, {measured['machine']}."
        shown = _table(("figure", "measured", "aim", "reached"), rows) + f"\n\n{when}\n"
    return f"{before}{FIGURES_BEGIN}\n{shown}{FIGURES_END}{after}"


if __name__ == "__main__":
    reference_file().write_text(render(), encoding="utf-8")
    edge_rule_schema_file().write_text(edge_rule_schema(), encoding="utf-8")
    rule_schema_file().write_text(rule_schema(), encoding="utf-8")
    readme_file().write_text(with_figures(readme_file().read_text(encoding="utf-8")), encoding="utf-8")
