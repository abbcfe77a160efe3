"""A source of the configuration to one that runs; what a kind needs is imported only where it is configured."""

import random
import time
from pathlib import Path

from edge_agent.adapters.file_marks import FileMarks
from edge_agent.adapters.source_files import open_source
from edge_agent.config import FileSource, HttpSource, MqttSource, PushedSource, SocketSource
from edge_agent.ports import Disk, PushSource, Put, Source


def open_file(config: FileSource, disk: Disk) -> Source:
    """Return a file as a source; `disk` remembers where followed files begin. Raises SourceError."""
    marks = FileMarks(disk, f"source-{config.name}.json") if config.follow else None
    return open_source(Path(config.file), follow=config.follow, marks=marks)


def open_pushed(config: PushedSource, put: Put) -> PushSource:
    """Return a source that apps or sensors push to, not yet started. Raises SourceError."""
    match config:
        case SocketSource():
            from edge_agent.adapters.socket_source import open_socket_source

            return open_socket_source(config, put, time.monotonic)
        case HttpSource():
            from edge_agent.adapters.http_source import open_http_source

            return open_http_source(config, put, time.monotonic)
        case MqttSource():
            from edge_agent.adapters.mqtt_source import MqttReceiver

            return MqttReceiver(config, put, random.SystemRandom().random)
