"""The demo's input: packaged data sets dealt over devices, scripted visits among them, a generated history and CRM.

telemetry        the shuttle sensor record over 20 machines
purchases        CDNOW purchases over 2 shop collectors
clicks           the shop click stream over 2 web collectors
visits           scripted visits for the rules, and their near misses
service_history  generated entries on 2 tablets
crm              generated accounts, machines and contacts for PostgreSQL
replay           what a replay file looks like
collection       all of it into one folder, with a manifest
"""

from infra.datasets.collection import FileEntry, Manifest, Sources, read_manifest, write_datasets
from infra.datasets.errors import FractionError, SourceFileError
from infra.datasets.replay import Provenance
from infra.datasets.telemetry import ReadingTruth
from infra.datasets.visits import VisitTruth

__all__ = [
    "FileEntry",
    "FractionError",
    "Manifest",
    "Provenance",
    "ReadingTruth",
    "SourceFileError",
    "Sources",
    "VisitTruth",
    "read_manifest",
    "write_datasets",
]
