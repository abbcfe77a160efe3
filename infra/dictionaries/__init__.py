"""Dictionaries for payloads: a plan and zstd's own part, learnt from one tenant's rows; published for device and lake.

planning   which differences and which order of columns make rows small
masking    personal texts made unreadable before anything is learnt from them
training   from rows to a dictionary with its proof on rows that it has not seen
files      rows from files, dictionaries to and from files
"""

from infra.dictionaries.errors import DictionaryError
from infra.dictionaries.files import read_dictionary, read_rows, write_dictionary
from infra.dictionaries.training import Outcome, Rows, Trained, train

__all__ = [
    "DictionaryError",
    "Outcome",
    "Rows",
    "Trained",
    "read_dictionary",
    "read_rows",
    "train",
    "write_dictionary",
]
