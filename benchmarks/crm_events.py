"""A CRM-like event: what a rep's tablet reports of a visit, 13 fields without free text, made from a seed.

Values repeat the way they do in a CRM: few kinds, some hundred customers of which a rep sees some, ids of open
opportunities, money in cents, times in ms. A visit is some acts at one customer, one after the other.
"""

from random import Random
from typing import Any, Final

import numpy as np

from contracts.contract import Contract, Field, FieldType
from edge_agent.core.codec.record_batch import Column

KINDS: Final = (
    "visit_started",
    "note",
    "document_shown",
    "quote_made",
    "sample_asked",
    "task_done",
    "visit_ended",
    "call",
)
STAGES: Final = ("lead", "qualified", "sample", "quote", "negotiation", "won", "lost")
PRODUCTS: Final = ("PX-160", "PX-250", "PX-400", "HX-90", "SRV-1", "SRV-2", "EMC-REPORT", "IP67-KIT", "CANOPEN-GW")
REGIONS: Final = ("CN-EAST", "CN-SOUTH", "DE-SOUTH", "DE-NORTH", "US-MIDWEST", "JP-KANTO")
CURRENCIES: Final = {"CN": "CNY", "DE": "EUR", "US": "USD", "JP": "JPY"}
CUSTOMERS: Final = 500
REPS: Final = 40
START_MS: Final = 1_767_600_000_000
VISIT_ACTS: Final = (2, 12)

_FIELDS: Final = (
    ("rep_id", FieldType.STRING, True, False),
    ("customer_id", FieldType.STRING, True, False),
    ("opportunity_id", FieldType.STRING, False, False),
    ("kind", FieldType.STRING, True, False),
    ("stage", FieldType.STRING, True, False),
    ("product", FieldType.STRING, False, False),
    ("region", FieldType.STRING, True, False),
    ("currency", FieldType.STRING, True, False),
    ("amount", FieldType.DOUBLE, False, False),
    ("quantity", FieldType.INT, True, False),
    ("dwell_s", FieldType.DOUBLE, False, False),
    ("online", FieldType.BOOLEAN, True, False),
    ("occurred_at", FieldType.TIMESTAMPTZ, True, True),
)

CONTRACT: Final = Contract(
    id="crm_activity",
    version="1.0.0",
    title="CRM activity",
    purpose="Measure what a kept event costs on the wire.",
    owner="benchmarks",
    catalog="lake_b",
    namespace="behaviour",
    retention_days=1,
    subject_kind="customer",
    subject_field="customer_id",
    event_time_field="occurred_at",
    fields=tuple(
        Field(number, name, kind, required, difference)
        for number, (name, kind, required, difference) in enumerate(_FIELDS, start=1)
    ),
)


def events(count: int, seed: int) -> list[dict[str, Any]]:
    """Return events of one rep's tablet in their order; what they have in common with another seed's is the firm."""
    rng, firm = Random(seed), Random(0)
    home = {number: firm.choice(REGIONS) for number in range(CUSTOMERS)}
    rep = f"rep-{rng.randrange(REPS) + 1:03d}"
    mine = rng.sample(range(CUSTOMERS), 60)
    now_ms = START_MS + rng.randrange(86_400_000)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        customer, opportunity = rng.choice(mine), rng.randrange(100_000)
        stage = rng.choice(STAGES)
        now_ms += rng.randrange(600_000, 5_400_000)
        for _ in range(rng.randint(*VISIT_ACTS)):
            now_ms += rng.randrange(2_000, 240_000)
            kind = rng.choice(KINDS)
            quoted = kind in ("quote_made", "sample_asked")
            found.append(
                {
                    "rep_id": rep,
                    "customer_id": f"ACC-{customer + 1:04d}",
                    "opportunity_id": f"OPP-2026-{opportunity:05d}" if stage != "lead" else None,
                    "kind": kind,
                    "stage": stage,
                    "product": rng.choice(PRODUCTS) if kind != "call" else None,
                    "region": home[customer],
                    "currency": CURRENCIES[home[customer][:2]],
                    "amount": rng.randrange(5_000, 900_000) / 100 if quoted else None,
                    "quantity": rng.choice((1, 1, 1, 2, 5, 10, 20, 50)) if quoted else 0,
                    "dwell_s": rng.randrange(10, 3_000) / 10 if kind == "document_shown" else None,
                    "online": rng.random() < 0.8,
                    "occurred_at": now_ms * 1_000,
                }
            )
    return found[:count]


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Column]:
    """Return events as a device holds them."""
    arrays: dict[FieldType, Any] = {
        FieldType.INT: np.int32,
        FieldType.TIMESTAMPTZ: np.int64,
        FieldType.BOOLEAN: np.bool_,
    }
    columns: dict[str, Column] = {}
    for field in CONTRACT.fields:
        values = [row[field.name] for row in rows]
        plain = field.required and field.type in arrays
        columns[field.name] = np.array(values, dtype=arrays[field.type]) if plain else values
    return columns
