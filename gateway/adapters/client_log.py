"""What librdkafka's own log lines may add to ours."""

import logging
from typing import Final

# The clients say this for every failed connection attempt, together 20 lines a second while Kafka is down. The gateway
# says once that Kafka is unavailable and why, and repeats it while messages wait.
CONNECTION_FAILED: Final = "FAIL"


def client_logger(name: str) -> logging.Logger:
    """Return the logger for a Kafka client of a module; lines about lost connections are left out."""
    logger = logging.getLogger(f"{name}.librdkafka")
    logger.addFilter(_is_not_about_connections)
    return logger


def _is_not_about_connections(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(CONNECTION_FAILED)
