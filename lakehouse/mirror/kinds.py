"""Which table an object's records lie in, and which of its fields have a column.

A column is filled from the first of its fields that the record has; vendors call the same thing by different names.
What has no column, and what does not fit its column's type, is in `extra` under the vendor's name.
"""

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Final

from msgspec import Struct

DECIMAL_DIGITS: Final = 38  # digits of a decimal column: the most that Trino has; it hides one without a limit
DECIMAL_PLACES: Final = 10  # of them behind the point: enough for any currency's unit price


class Type(Enum):
    """Type of a column, by PostgreSQL's name. `REFERENCE` is the id of a record, which Zoho wraps in an object."""

    TEXT = "text"
    NUMERIC = f"numeric({DECIMAL_DIGITS}, {DECIMAL_PLACES})"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamptz"
    REFERENCE = "reference"

    @property
    def sql(self) -> str:
        """Name in SQL."""
        return Type.TEXT.value if self is Type.REFERENCE else self.value


class Column(Struct, frozen=True):
    """One column and the fields that fill it, in order of preference. `own_id`: the record's id when none does."""

    name: str
    type: Type
    fields: tuple[str, ...]
    own_id: bool = False


class RecordKind(Struct, frozen=True):
    """One table: its objects by their vendors' names in lower case, and its columns."""

    table: str
    objects: tuple[str, ...]
    columns: tuple[Column, ...]
    indexed: tuple[str, ...] = ()


def _text(name: str, *fields: str) -> Column:
    return Column(name, Type.TEXT, (name, *fields))


def _reference(name: str, *fields: str) -> Column:
    return Column(name, Type.REFERENCE, (name, *fields))


def _id(name: str, *fields: str) -> Column:
    return Column(name, Type.REFERENCE, (name, *fields), own_id=True)


_OWNER: Final = _reference("owner_id", "OwnerId", "hubspot_owner_id", "Owner")
_ACCOUNT: Final = _reference("account_id", "AccountId", "associatedcompanyid", "Account_Name")
_STATUS: Final = _text("status", "Status", "hs_pipeline_stage", "hs_task_status")
_PRIORITY: Final = _text("priority", "Priority", "hs_ticket_priority", "hs_task_priority")

ACCOUNTS: Final = RecordKind(
    "accounts",
    ("account", "accounts", "company", "companies", "0-2"),
    (
        _id("account_id"),
        _text("name", "Name", "Account_Name"),
        _text("region", "Region__c", "Region", "state", "Billing_State"),
        _text("tier", "Tier__c", "Tier", "Rating"),
        _text("industry", "Industry"),
        _text("phone", "Phone"),
        _text("website", "Website", "domain"),
        Column("annual_revenue", Type.NUMERIC, ("annual_revenue", "AnnualRevenue", "annualrevenue", "Annual_Revenue")),
        Column("employees", Type.NUMERIC, ("employees", "NumberOfEmployees", "numberofemployees", "Employees")),
        _OWNER,
    ),
)
CONTACTS: Final = RecordKind(
    "contacts",
    ("contact", "contacts", "0-1"),
    (
        _id("customer_id"),
        _ACCOUNT,
        _text("name", "Name", "Full_Name"),
        _text("first_name", "FirstName", "firstname", "First_Name"),
        _text("last_name", "LastName", "lastname", "Last_Name"),
        _text("email", "Email"),
        _text("phone", "Phone"),
        _text("title", "Title", "jobtitle"),
        _OWNER,
    ),
    ("account_id",),
)
OPPORTUNITIES: Final = RecordKind(
    "opportunities",
    ("opportunity", "opportunities", "deal", "deals", "0-3"),
    (
        _id("opportunity_id"),
        _ACCOUNT,
        _text("name", "Name", "dealname", "Deal_Name"),
        _text("stage", "StageName", "dealstage", "Stage"),
        Column("amount", Type.NUMERIC, ("amount", "Amount")),
        _text("currency", "CurrencyIsoCode", "deal_currency_code", "Currency"),
        Column("probability", Type.NUMERIC, ("probability", "Probability", "hs_deal_stage_probability")),
        Column("close_date", Type.DATE, ("close_date", "CloseDate", "closedate", "Closing_Date")),
        _OWNER,
    ),
    ("account_id",),
)
TASKS: Final = RecordKind(
    "tasks",
    ("task", "tasks", "0-27"),
    (
        _id("task_id"),
        _reference("account_id", "AccountId", "WhatId", "What_Id"),
        _reference("contact_id", "WhoId", "Who_Id"),
        _text("subject", "Subject", "hs_task_subject"),
        _STATUS,
        _PRIORITY,
        Column("due_at", Type.TIMESTAMP, ("due_at", "ActivityDate", "hs_timestamp", "Due_Date")),
        _OWNER,
    ),
    ("account_id",),
)
CASES: Final = RecordKind(
    "cases",
    ("case", "cases", "ticket", "tickets", "0-5"),
    (
        _id("case_id"),
        _ACCOUNT,
        _reference("contact_id", "ContactId", "Related_To"),
        _reference("asset_id", "AssetId", "Product_Name"),
        _text("subject", "Subject"),
        _STATUS,
        _PRIORITY,
        Column("closed_at", Type.TIMESTAMP, ("closed_at", "ClosedDate", "closed_date")),
        _OWNER,
    ),
    ("account_id", "asset_id"),
)
ASSETS: Final = RecordKind(
    "assets",
    ("asset", "assets", "installed_base"),
    (
        _id("asset_id", "SerialNumber", "serial_number", "Serial_Number"),
        _ACCOUNT,
        _text("model", "Model__c", "Model", "Product2Id"),
        Column("installed_on", Type.DATE, ("installed_on", "InstallDate", "Install_Date")),
        _text("name", "Name"),
        _STATUS,
    ),
    ("account_id", "asset_id"),
)
RECORDS: Final = RecordKind("records", (), ())
"""Everything else: all of it in `extra`."""

KINDS: Final = (ACCOUNTS, CONTACTS, OPPORTUNITIES, TASKS, CASES, ASSETS, RECORDS)

_BY_OBJECT: Final[Mapping[str, RecordKind]] = {name: kind for kind in KINDS for name in kind.objects}


@lru_cache(maxsize=1_000)
def kind_of(object_name: str) -> RecordKind:
    """Return the kind of an object by its vendor's name."""
    return _BY_OBJECT.get(object_name.lower(), RECORDS)
