"""What a fresh stack needs before devices may publish: contracts, dictionaries, the CRM's records, rules."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psycopg
from confluent_kafka import Producer

from contracts import rules
from contracts.bundle import Bundle
from contracts.errors import RetrySafeError
from contracts.rules import Rule
from flink_jobs.triggers import publish
from infra.bundles.local import publish_standard
from infra.datasets.crm import SYSTEM as CRM_SYSTEM
from infra.datasets.crm import TABLES as CRM_OBJECTS
from infra.datasets.crm import TENANT as CRM_TENANT
from infra.datasets.crm import snapshot_of
from infra.launcher.endpoints import Endpoints
from infra.setup.paths import repo_root
from lakehouse.mirror.log import publish_changes
from lakehouse.mirror.tables import COMPLETE_SNAPSHOTS_SQL
from lakehouse.publish import publish_contracts

HELD_BACK_RULES: Final = ("ip67-canopen-consultant",)  # shipped, and applied by hand to show a rule taking force
MIRRORED_WITHIN_S: Final = 120.0  # s until the mirror must show the seed, which takes it some seconds
MIRRORED_LOOK_S: Final = 0.1  # s between two looks


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
    """Put the CRM's records on the log as a whole reading of each object; return when the mirror shows them.

    Raises LogUnavailableError, and RetrySafeError when the mirror has not followed in time.
    """
    now_us = time.time_ns() // 1_000
    publish_changes(endpoints.kafka.bootstrap, snapshot_of(folder, now_us))
    until_s = time.monotonic() + MIRRORED_WITHIN_S
    with psycopg.connect(endpoints.postgres.uri("crm"), autocommit=True) as connection:
        while True:
            row = connection.execute(COMPLETE_SNAPSHOTS_SQL.encode(), (CRM_SYSTEM, CRM_TENANT, now_us)).fetchone()
            if row is not None and row[0] == len(CRM_OBJECTS):
                return
            if time.monotonic() > until_s:
                raise RetrySafeError(
                    f"CRM mirror: expected the seed within {MIRRORED_WITHIN_S:.0f} s: see `fieldlake crm mirror`"
                )
            time.sleep(MIRRORED_LOOK_S)


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
