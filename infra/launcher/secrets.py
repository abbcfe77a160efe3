"""Passwords and keys of one copy of the stack: drawn once, kept in one file that only its owner reads."""

import base64
import secrets
import uuid
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from infra.launcher.errors import SettingsError
from infra.launcher.files import PRIVATE, write_file
from infra.launcher.settings import StackSettings

PASSWORD_BYTES: Final = 24  # 192 random bits: no guess succeeds, and every part accepts 32 characters


class Secrets(Struct, frozen=True, forbid_unknown_fields=True):
    """Every generated secret. Key ids are names, not secrets, but belong to their keys."""

    postgres_password: str
    postgres_mirror_password: str
    store_a_key_id: str
    store_a_secret: str
    store_b_key_id: str
    store_b_secret: str
    trino_password: str
    trino_analyst_password: str
    trino_shared_secret: str
    kafka_cluster_id: str  # 22 characters of URL-safe base64: 16 bytes
    history_token: str


def generate_secrets() -> Secrets:
    """Draw a new set."""
    return Secrets(
        postgres_password=_password(),
        postgres_mirror_password=_password(),
        store_a_key_id=f"store-a-{secrets.token_hex(6)}",
        store_a_secret=_password(),
        store_b_key_id=f"store-b-{secrets.token_hex(6)}",
        store_b_secret=_password(),
        trino_password=_password(),
        trino_analyst_password=_password(),
        trino_shared_secret=_password(),
        kafka_cluster_id=_cluster_id(),
        history_token=_password(),
    )


def load_secrets(settings: StackSettings) -> Secrets:
    """Return the copy's secrets, drawing and keeping them at the first call."""
    path = _path(settings)
    if not path.exists():
        write_file(path, msgspec.json.format(msgspec.json.encode(generate_secrets())), PRIVATE)
    return peek_secrets(settings)


def peek_secrets(settings: StackSettings) -> Secrets:
    """Return the copy's secrets for what must not write; a copy that never started is described by any set."""
    path = _path(settings)
    if not path.exists():
        return generate_secrets()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except msgspec.MsgspecError as error:
        raise SettingsError(
            f"{path}: expected the secrets of this version, found: {error}; "
            f"remove the state folder {settings.state_dir} to begin anew"
        ) from None


def _path(settings: StackSettings) -> Path:
    return settings.conf_dir / "secrets.json"


def _password() -> str:
    # Hexadecimal would be longer and `-` at the front is read as an option by some command lines.
    return "p" + secrets.token_urlsafe(PASSWORD_BYTES)


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
