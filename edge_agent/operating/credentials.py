"""The certificate by which the broker knows the device, looked at without touching it."""

from pathlib import Path

from msgspec import Struct

from edge_agent.adapters.identity import CURRENT, IdentityFolder
from edge_agent.config import MqttConfig
from edge_agent.errors import IdentityError


class Certificate(Struct, frozen=True):
    """`name` is the common name, times are Unix times in milliseconds."""

    name: str
    not_before_ms: int
    not_after_ms: int


def files_of(config: MqttConfig) -> tuple[Path, Path]:
    """Return the files of certificate and key that the next connection would show. Raises IdentityError, OSError."""
    if config.cert_file is not None and config.key_file is not None:
        return Path(config.cert_file), Path(config.key_file)
    folder = Path(config.identity_dir or "")
    # The class would make the folder, and this only looks.
    found = IdentityFolder(folder).current() if (folder / CURRENT).exists() else None
    if found is None:
        raise IdentityError(f"identity {folder}: not enrolled: give it an invitation")
    return Path(found.cert_file), Path(found.key_file)


def read_certificate(path: Path) -> Certificate:
    """Return what a certificate in PEM form says. Raises IdentityError, OSError."""
    from cryptography import x509  # 10 MB, which the agent's own process does without
    from cryptography.x509.oid import NameOID

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise IdentityError(f"certificate {path}: expected one in PEM form: {error}: enrol the device again") from None
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        name=str(names[0].value) if names else "",
        not_before_ms=int(found.not_valid_before_utc.timestamp() * 1_000),
        not_after_ms=int(found.not_valid_after_utc.timestamp() * 1_000),
    )
