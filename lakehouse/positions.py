"""Places in the log, by partition. Pure."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

Positions: TypeAlias = dict[str, int]  # "topic/partition" -> next offset to read


def topic_of(partition: str) -> str:
    """Return the topic in "topic/partition"."""
    return partition.rpartition("/")[0]


def number_of(partition: str) -> int:
    """Return the partition's number in "topic/partition"."""
    return int(partition.rpartition("/")[2])


def named(topic: str, number: int) -> str:
    """Return "topic/partition"."""
    return f"{topic}/{number}"


def highest(several: Iterable[Mapping[str, int]]) -> Positions:
    """Return the highest position of each partition."""
    found: Positions = {}
    for positions in several:
        for partition, offset in positions.items():
            found[partition] = max(offset, found.get(partition, 0))
    return found


def of_logs(positions: Mapping[str, int], logs: Mapping[str, str], present: Mapping[str, str]) -> Positions:
    """Return the positions whose topic still is the log that they were taken in.

    A topic whose identity has changed was created anew: positions in the old one mean nothing.
    """
    return {
        partition: offset
        for partition, offset in positions.items()
        if logs.get(topic_of(partition)) == present.get(topic_of(partition))
    }
