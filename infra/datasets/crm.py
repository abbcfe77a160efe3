"""The CRM's own side, generated: accounts, the machines that they own, the people who buy and browse for them.

It is written as CSV files, and put on the log from them as a connector would that reads each object whole. Customers
are those of the purchases, of the click stream and of the scripted visits, so that a join over all sources finds every
one of them.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Final

from contracts.crm_change import Cause, CrmChange, CrmMessage, Kind, Snapshot, SnapshotEnd, Version, values
from infra.datasets.service_history import ASSET_COUNT
from infra.datasets.telemetry import asset_id

ACCOUNT_COUNT: Final = 500
SYSTEM: Final = "demo"  # the CRM that these records are of
TENANT: Final = "local"
TABLES: Final = ("accounts", "assets", "contacts")

_IDS: Final[Mapping[str, str]] = {"accounts": "account_id", "assets": "asset_id", "contacts": "customer_id"}
_REGIONS: Final = ("CN-EAST", "CN-SOUTH", "DE-SOUTH", "DE-NORTH", "US-MIDWEST", "JP-KANTO")
_TIERS: Final = ("gold", "silver", "silver", "standard", "standard", "standard")
_MODELS: Final = ("PX-160", "PX-250", "PX-400", "HX-90")
_FIRMS: Final = (
    "华东精工",
    "Nordwerk",
    "Lakeside Forming",
    "南方液压",
    "Kanto Press",
    "Isar Metall",
    "长江重工",
    "Prairie Stamping",
)
_FAMILY: Final = ("王", "Schmidt", "李", "Miller", "佐藤", "Weber", "张", "Olsen", "陈", "Garcia")
_GIVEN: Final = ("伟", "Anna", "芳", "James", "健", "Lena", "敏", "Erik", "静", "Maria")
_FIRST_INSTALLATION: Final = date(2015, 1, 5)
_INSTALLATION_DAYS: Final = 3_000


def account_id(number: int) -> str:
    """Return the name of the account with this number, counted from 0."""
    return f"ACC-{number + 1:04d}"


def generate_crm(customers: Sequence[str], seed: int) -> dict[str, tuple[int, bytes]]:
    """Return per table of `TABLES` its row count and its CSV with a header.

    Every account owns two machines and has customers; which ones is decided by `seed`.
    """
    rng = Random(seed)
    accounts = [
        (account_id(n), f"{rng.choice(_FIRMS)} {n + 1:03d}", rng.choice(_REGIONS), rng.choice(_TIERS))
        for n in range(ACCOUNT_COUNT)
    ]
    assets = [
        (asset_id(n), owner, rng.choice(_MODELS), _installation_day(rng))
        for n, owner in enumerate(_shuffled_owners(rng, ASSET_COUNT))
    ]
    contacts = [
        (customer, owner, f"{rng.choice(_GIVEN)} {rng.choice(_FAMILY)}")
        for customer, owner in zip(customers, _shuffled_owners(rng, len(customers)), strict=True)
    ]
    return {
        "accounts": (len(accounts), _csv(("account_id", "name", "region", "tier"), accounts)),
        "assets": (len(assets), _csv(("asset_id", "account_id", "model", "installed_on"), assets)),
        "contacts": (len(contacts), _csv(("customer_id", "account_id", "name"), contacts)),
    }


def snapshot_of(folder: Path, now_us: int) -> Iterator[CrmMessage]:
    """Yield the CSV files as one snapshot per object: what else the mirror has of this CRM is gone after it."""
    for table in TABLES:
        snapshot = Snapshot(f"{table}-{now_us}", now_us)
        with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        for row in rows:
            yield CrmChange(
                system=SYSTEM,
                tenant=TENANT,
                object=table,
                record=row[_IDS[table]],
                kind=Kind.UPDATED,
                version=Version(now_us),
                captured_at_ms=now_us // 1_000,
                fields=values(row),
                full=True,
                cause=Cause(source="seed"),
                snapshot=snapshot,
            )
        yield SnapshotEnd(SYSTEM, TENANT, table, snapshot, len(rows))


def _shuffled_owners(rng: Random, count: int) -> list[str]:
    owners = [account_id(n % ACCOUNT_COUNT) for n in range(count)]
    rng.shuffle(owners)
    return owners


def _installation_day(rng: Random) -> str:
    return (_FIRST_INSTALLATION + timedelta(days=rng.randrange(_INSTALLATION_DAYS))).isoformat()


def _csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
