"""What a fresh stack needs before devices may publish: contracts, dictionaries, the CRM's tables, rules."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psycopg
from confluent_kafka import Producer

from contracts import rules
from contracts.bundle import Bundle
from contracts.rules import Rule
from federation.crm import ACCOUNT_CONTACTS_VIEW_SQL
from flink_jobs.triggers import publish
from infra.bundles.local import publish_standard
from infra.launcher.endpoints import Endpoints
from infra.setup.paths import repo_root
from lakehouse.publish import publish_contracts

HELD_BACK_RULES: Final = ("ip67-canopen-consultant",)  # shipped, and applied by hand to show a rule taking force
CRM_TABLES: Final = ("accounts", "assets", "contacts")  # in an order that satisfies their references


def provision(endpoints: Endpoints, bundle: Bundle, bundle_dir: Path, crm_dir: Path | None = None) -> None:
    """Publish contracts and dictionaries for the lake, the bundle for devices; seed the CRM when a folder is given.

    The lake comes first: a device that has a bundle sends what only the published contracts explain.
    """
    dictionaries = {d.id: (bundle_dir / d.file).read_bytes() for d in bundle.dictionaries}
    publish_contracts(endpoints.kafka.bootstrap, bundle.contracts, dictionaries)
    publish_standard(endpoints.settings(), bundle_dir)
    if crm_dir is not None:
        seed_crm(endpoints, crm_dir)


def seed_crm(endpoints: Endpoints, folder: Path) -> None:
    """Make the CRM's tables if they are missing, and replace their rows by the CSV files', in one transaction."""
    with psycopg.connect(endpoints.postgres.uri("crm")) as connection, connection.cursor() as cursor:
        cursor.execute((folder / "schema.sql").read_bytes())
        cursor.execute(ACCOUNT_CONTACTS_VIEW_SQL.encode())
        cursor.execute("TRUNCATE " + ", ".join(f"crm.{table}" for table in CRM_TABLES))
        for table in CRM_TABLES:
            with cursor.copy(f"COPY crm.{table} FROM STDIN WITH (FORMAT csv, HEADER true)") as copy:
                copy.write((folder / f"{table}.csv").read_bytes())


def shipped_rules() -> dict[str, Rule]:
    """Return the shipped rule documents by rule id."""
    folder = repo_root() / "flink_jobs" / "triggers" / "rules"
    found = [rules.decode(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    return {rule.id: rule for rule in found}


def apply_rules(bootstrap: str, documents: Iterable[Rule]) -> int:
    """Publish rules; return the offset that names the rule set with all of them. Raises PublishError."""
    producer = _producer(bootstrap)
    return max((publish.apply(rule, producer) for rule in documents), default=-1)


def delete_rule(bootstrap: str, rule_id: str) -> int:
    """Take a rule out of force; return the offset that names the rule set without it. Raises PublishError."""
    return publish.delete(rule_id, _producer(bootstrap))


def _producer(bootstrap: str) -> Producer:
    return Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all"})
