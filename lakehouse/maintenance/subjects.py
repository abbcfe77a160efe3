"""Which rows of a table are about a subject. Pure."""

import json
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from pyiceberg.manifest import DataFile
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from lakehouse.history import BUCKETS, field_id, history_spec, subject_id
from lakehouse.maintenance.bounds import may_contain_text
from lakehouse.tables import PERSONAL_PROPERTY, SUBJECT_KIND_PROPERTY, SUBJECT_PROPERTY

ORIGIN: Final = "origin"  # names the subject of a table whose contract has a kind and no field for it
KIND_COLUMN: Final = "subject_kind"  # a table of subjects of many kinds says by this column of which kind each row is


class Subject(Struct, frozen=True):
    """A person, organisation or asset: `kind` as contracts say it, `id` as rows do."""

    kind: str
    id: str


class About(Struct, frozen=True):
    """The rule: rows that name a subject.

    `own` is the column that names the subject of every row; `kind_column` is set where rows say the kind themselves.
    `mentions` are columns that may name a person beside it: the value itself, or a JSON text in which it is a value.
    """

    subject: Subject
    own: str | None
    own_id: int | None
    kind_column: str | None
    mentions: tuple[str, ...]
    bucketed_spec: int | None

    @property
    def columns(self) -> tuple[str, ...]:
        """What decides."""
        own = () if self.own is None else (self.own,)
        return (*own, *(() if self.kind_column is None else (self.kind_column,)), *self.mentions)

    def may_hold(self, file: DataFile) -> bool:
        """By the bucket and the bounds of the subject; a file of a table with mentions always may."""
        if self.mentions:
            return True
        if file.spec_id == self.bucketed_spec and file.partition[0] != bucket_of(self.subject.id):
            return False
        return self.own_id is not None and may_contain_text(file, self.own_id, self.subject.id)

    def holds_only(self, file: DataFile) -> bool:
        """Never known without reading: bounds say nothing of nulls and kinds."""
        return False

    def matches(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return which rows name the subject."""
        found = pa.chunked_array([pa.repeat(pa.scalar(False), len(rows))])
        if self.own is not None:
            is_own = pc.equal(rows.column(self.own), self.subject.id)
            if self.kind_column is not None:
                is_own = pc.and_(is_own, pc.equal(rows.column(self.kind_column), self.subject.kind))
            found = pc.or_(found, pc.fill_null(is_own, False))
        for name in self.mentions:
            found = pc.or_(found, _mentions(rows.column(name), self.subject.id))
        return found


def rule_of(metadata: TableMetadata, subject: Subject) -> About | None:
    """Return which rows of a table are about a subject; None when it can have none.

    A table of the subject's own kind, a table of subjects of many kinds, and personal columns of any table.
    """
    properties, schema = metadata.properties, metadata.schema()
    texts = {field.name for field in schema.fields if isinstance(field.field_type, StringType)}
    own = properties.get(SUBJECT_PROPERTY) or (ORIGIN if properties.get(SUBJECT_KIND_PROPERTY) else "")
    kind_column = KIND_COLUMN if KIND_COLUMN in texts else None
    is_of_kind = kind_column is not None or properties.get(SUBJECT_KIND_PROPERTY) == subject.kind
    found = own if own in texts and is_of_kind else None
    personal = [name for name in properties.get(PERSONAL_PROPERTY, "").split(",") if name in texts]
    mentions = tuple(name for name in personal if name != own)
    if found is None and not mentions:
        return None
    spec = history_spec(metadata)
    bucketed = spec.spec_id if spec is not None and found is not None and _is_subject(metadata, found) else None
    own_id = None if found is None else field_id(schema, found)
    return About(subject, found, own_id, kind_column if found is not None else None, mentions, bucketed)


def bucket_of(name: str) -> int:
    """Return the bucket of a subject's name."""
    return int(BucketTransform(BUCKETS).transform(StringType())(name) or 0)


def quoted(name: str) -> tuple[str, ...]:
    """Return a value as JSON texts write it: with other letters as they are, and escaped."""
    return tuple(dict.fromkeys((json.dumps(name, ensure_ascii=False), json.dumps(name))))


def _mentions(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    found = pc.equal(column, name)
    for text in quoted(name):
        found = pc.or_(found, pc.match_substring(column, text))
    return pc.fill_null(found, False)


def _is_subject(metadata: TableMetadata, name: str) -> bool:
    return subject_id(metadata) == field_id(metadata.schema(), name)
