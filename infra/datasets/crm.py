"""The CRM's own side, generated: accounts, the machines that they own, the people who buy and browse for them.

It is written as DDL and CSV files for PostgreSQL's COPY, in the order of `TABLES`. Customers are those of the
purchases, of the click stream and of the scripted visits, so that a join over all sources finds every one of them.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from random import Random
from typing import Final

from infra.datasets.service_history import ASSET_COUNT
from infra.datasets.telemetry import asset_id

ACCOUNT_COUNT: Final = 500
SCHEMA_FILE: Final = "schema.sql"
TABLES: Final = ("accounts", "assets", "contacts")

SCHEMA_SQL: Final = """\
CREATE SCHEMA IF NOT EXISTS crm;

CREATE TABLE IF NOT EXISTS crm.accounts (
    account_id text PRIMARY KEY,
    name       text NOT NULL,
    region     text NOT NULL,
    tier       text NOT NULL CHECK (tier IN ('gold', 'silver', 'standard'))
);

CREATE TABLE IF NOT EXISTS crm.assets (
    asset_id     text PRIMARY KEY,
    account_id   text NOT NULL REFERENCES crm.accounts,
    model        text NOT NULL,
    installed_on date NOT NULL
);

CREATE TABLE IF NOT EXISTS crm.contacts (
    customer_id text PRIMARY KEY,
    account_id  text NOT NULL REFERENCES crm.accounts,
    name        text NOT NULL
);

CREATE INDEX IF NOT EXISTS assets_by_account ON crm.assets (account_id);
CREATE INDEX IF NOT EXISTS contacts_by_account ON crm.contacts (account_id);
"""

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
