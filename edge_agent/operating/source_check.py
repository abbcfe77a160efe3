"""Whether a source of the configuration could be read, without taking an event from it."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge_agent.adapters.secret_files import read_secret
from edge_agent.adapters.source_files import open_source
from edge_agent.config import AnySource, FileSource, HttpSource, MqttSource, SocketSource
from edge_agent.errors import SourceError
from edge_agent.operating.findings import Finding, Level, ok

CONNECT_S = 5.0  # s; a broker on the device's own network


def look(source: AnySource, *, runs: bool) -> Iterator[Finding]:
    """Yield what is wrong with a source, or that nothing is. `runs` says that an agent has it open."""
    name = f"source {source.name}"
    try:
        match source:
            case FileSource():
                yield _file(name, source)
            case SocketSource():
                yield _socket(name, source, runs)
            case HttpSource():
                yield _http(name, source, runs)
            case MqttSource():
                yield _mqtt(name, source)
    except (SourceError, OSError) as error:
        yield Finding(name, Level.BAD, str(error))


def _file(name: str, source: FileSource) -> Finding:
    path = Path(source.file)
    if source.follow and not path.exists():
        return Finding(name, Level.WARNING, f"{path} is not there yet", "it is read as soon as it is")
    with closing(open_source(path, follow=False)) as opened:
        opened.read(1)
    return ok(name, f"{path}, {path.stat().st_size} bytes")


def _socket(name: str, source: SocketSource, runs: bool) -> Finding:
    path = Path(source.path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        remedy = f"make {path.parent} with the agent's user as its owner"
        return Finding(name, Level.BAD, f"{path.parent} cannot be written", remedy)
    if runs and not path.is_socket():
        return Finding(name, Level.BAD, f"{path} is not there, and the agent runs", "its log says why")
    return ok(name, str(path))


def _http(name: str, source: HttpSource, runs: bool) -> Finding:
    read_secret(Path(source.token_file))
    with socket.socket() as probe:
        if runs:
            probe.settimeout(CONNECT_S)
            if probe.connect_ex(("127.0.0.1", source.port)) != 0:
                return Finding(name, Level.BAD, f"nothing listens on port {source.port}", "the agent's log says why")
        else:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", source.port))
            except OSError as error:
                remedy = "end the program that has it, or choose another port"
                return Finding(name, Level.BAD, f"port {source.port}: {error.strerror}", remedy)
    return ok(name, f"port {source.port}, token in {source.token_file}")


def _mqtt(name: str, source: MqttSource) -> Finding:
    for file in (source.ca_file, source.cert_file, source.key_file):
        if file is not None and not os.access(file, os.R_OK):
            return Finding(name, Level.BAD, f"{file} cannot be read", "give the agent's user the right to read it")
    if source.password_file is not None:
        read_secret(Path(source.password_file), bytes_min=1)
    try:
        socket.create_connection((source.host, source.port), CONNECT_S).close()
    except OSError as error:
        remedy = "check that the broker runs; its events wait there meanwhile"
        return Finding(name, Level.BAD, f"{source.host}:{source.port}: {error}", remedy)
    return ok(name, f"{source.host}:{source.port} answers")
