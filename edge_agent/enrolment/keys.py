"""The device's own key: made here, written once, read only by its owner."""

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from edge_agent.adapters.identity import KEY, write_file
from edge_agent.errors import IdentityError


class Request(Struct, frozen=True):
    """A certificate signing request (PKCS 10, PEM), and the hash by which the answer names its key."""

    csr_pem: str
    key_sha256: str


def make_request(folder: Path, device: str) -> Request:
    """Make a P-256 key in a generation's folder unless it has one; return a request for it.

    Raises IdentityError for a key file that cannot be read, OSError for a disk that takes no file.
    """
    path = folder / KEY
    key = _read(path) if path.exists() else ec.generate_private_key(ec.SECP256R1())
    if not path.exists():
        write_file(
            path,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoded = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Request(request.public_bytes(serialization.Encoding.PEM).decode(), hashlib.sha256(encoded).hexdigest())


def _read(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise IdentityError(f"{path}: expected a private key in PEM form: {error}: remove its folder") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: expected a key on the curve P-256: remove its folder")
    return key
