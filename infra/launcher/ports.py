"""Whether the ports of a copy are free, and who holds one that is not."""

import random
import socket
from collections.abc import Iterable
from typing import Final

import psutil
from msgspec import Struct

from infra.launcher.errors import PortInUseError
from infra.launcher.model import Part
from infra.launcher.processes import describe
from infra.launcher.settings import HOST, PORT_BASE_VARIABLE, PORT_OFFSETS, PORTS_SPAN, StackSettings

# Below the ephemeral range, beside the default base.
FREE_BASES: Final = (25_000, 32_000, PORTS_SPAN)


class PortClash(Struct, frozen=True):
    """A port that a part needs and another process holds."""

    part: str
    port_name: str
    port: int
    holder: str


def find_clashes(settings: StackSettings, parts: Iterable[Part]) -> list[PortClash]:
    """Return the ports of these parts that cannot be bound now."""
    return [
        PortClash(part.name, name, settings.port(name), describe(_holder(settings.port(name))))
        for part in parts
        for name in part.ports
        if not is_free(settings.port(name))
    ]


def refuse_clashes(settings: StackSettings, clashes: list[PortClash]) -> None:
    """Raise PortInUseError for the first clash, saying how many more there are and which setting moves all ports."""
    if not clashes:
        return
    first = clashes[0]
    more = f" (and {len(clashes) - 1} more ports)" if len(clashes) > 1 else ""
    raise PortInUseError(
        f"port {first.port} ({first.port_name} of part {first.part}): expected it free, found it held by {first.holder}"
        f"{more}; stop that process or set {PORT_BASE_VARIABLE} (now {settings.port_base}, "
        f"takes {PORTS_SPAN} ports from there) to another base"
    )


def is_free(port: int) -> bool:
    """Say whether a server may listen on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> int | None:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            return connection.pid
    return None


def free_port_base(rng: random.Random) -> int:
    """Return a base whose whole span is free now, drawn at random, so that copies started side by side differ."""
    for base in rng.sample(range(*FREE_BASES), len(range(*FREE_BASES))):
        if all(is_free(base + offset) for offset in PORT_OFFSETS.values()):
            return base
    raise PortInUseError(
        f"ports {FREE_BASES[0]} to {FREE_BASES[1]}: expected {PORTS_SPAN} free ones in a row, found none; "
        "stop other copies of the stack"
    )
