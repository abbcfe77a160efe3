"""A certificate authority in a folder: `private/NAME.key` (mode 0600) and `public/NAME.pem`.

Certificates follow RFC 5280: version 3, the common name that the caller says and never the one in the request, client
authentication only. Revocation lists are complete ones, replaced whole.
"""

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.enrolment import papers
from gateway.enrolment.core.model import Certificate, RevokedSerial
from gateway.errors import AuthorityError, RequestError

DEVICES: Final = "devices-ca"
CLAIMS: Final = "claims-ca"
PRIVATE_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644

CA_VALID: Final = dt.timedelta(days=3_650)
BACKDATED_MAX: Final = dt.timedelta(hours=1)  # a device whose clock lags must not refuse a certificate made just now
BACKDATED_SHARE: Final = 0.01  # of the life: a certificate of minutes must not be born old
# A list lies where the broker reads it, nobody fetches it: an expiry would guard against nothing, and would shut all
# devices out once this service has been away for so long.
LIST_VALID: Final = CA_VALID


def private_dir(folder: Path) -> Path:
    """Return the folder that only the service reads."""
    return folder / "private"


def public_dir(folder: Path) -> Path:
    """Return the folder that the broker reads too."""
    return folder / "public"


class Authority:
    """Signs requests and revocation lists. Make one with `open_authority`."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, csr_pem: str, common_name: str, valid: dt.timedelta, now: dt.datetime) -> Certificate:
        """Sign a request for a P-256 key. Raises RequestError."""
        key = _key_of(csr_pem)
        # Certificates count whole seconds.
        begin = now - min(BACKDATED_MAX, valid * BACKDATED_SHARE)
        certificate = (
            papers.builder(common_name, self._certificate.subject, key, begin, now + valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(papers.usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(self._identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(
            serial=f"{certificate.serial_number:x}",
            key_sha256=_key_sha256(key),
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            not_before_ms=_ms(certificate.not_valid_before_utc),
            not_after_ms=_ms(certificate.not_valid_after_utc),
        )

    @property
    def name_hash(self) -> str:
        """OpenSSL's hash of its name, by which files about it are found (`openssl rehash`).

        The first four bytes, little-endian, of the SHA-1 of the name's canonical form: values in lower case.
        """
        parts = [(part.oid, str(part.value)) for part in self._certificate.subject]
        encoded = x509.Name(
            [x509.NameAttribute(oid, " ".join(value.lower().split())) for oid, value in parts]
        ).public_bytes()
        content = encoded[2:]  # without tag and length of the sequence, which is shorter than 128 bytes
        digest = hashlib.sha1(content, usedforsecurity=False).digest()
        return f"{int.from_bytes(digest[:4], 'little'):08x}"

    def revocation_list(
        self, revoked: Iterable[RevokedSerial], number: int, this_update: dt.datetime, now: dt.datetime
    ) -> bytes:
        """Return a signed list in PEM form. Of two lists the one with the later `this_update` counts, in seconds."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(this_update)
            .next_update(now + LIST_VALID)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(entry.serial, 16))
                .revocation_date(dt.datetime.fromtimestamp(entry.revoked_at_ms / 1_000, dt.UTC))
                .build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def open_authority(folder: Path, name: str, now: dt.datetime) -> Authority:
    """Return the authority of this name, made at the first call. Raises AuthorityError."""
    for part, mode in ((folder, 0o711), (private_dir(folder), 0o700), (public_dir(folder), 0o755)):
        part.mkdir(parents=True, exist_ok=True)
        part.chmod(mode)
    key_file, certificate_file = private_dir(folder) / f"{name}.key", public_dir(folder) / f"{name}.pem"
    with one_at_a_time(folder):
        unfinished = certificate_file.with_suffix(".next")
        if key_file.exists() and unfinished.exists():
            unfinished.replace(certificate_file)
        if not key_file.exists():
            if certificate_file.exists():
                raise AuthorityError(
                    f"authority {name}: {certificate_file} is there and {key_file} is not: bring the key back from a "
                    "backup, or remove the certificate too and enrol every device anew"
                )
            _make(name, key_file, certificate_file, now)
        return _read(name, key_file, certificate_file)


def key_sha256(csr_pem: str) -> str:
    """Return the hash of a request's public key. Raises RequestError."""
    return _key_sha256(_key_of(csr_pem))


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Replace a file in one step; after a power cut the old or the new one is there, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(name: str, key_file: Path, certificate_file: Path) -> Authority:
    if key_file.stat().st_mode & 0o077:
        raise AuthorityError(f"authority {name}: {key_file}: expected mode 0600: others could read the key; chmod it")
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        raise AuthorityError(
            f"authority {name}: {key_file} and {certificate_file}: expected a key and its certificate: {error}: "
            "bring both back from a backup"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise AuthorityError(f"authority {name}: {key_file} is not the key of {certificate_file}: restore both")
    return Authority(certificate, key)


def _make(name: str, key_file: Path, certificate_file: Path, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = f"Fieldlake {name} {os.urandom(4).hex()}"
    certificate = (
        papers.builder(subject, papers.named(subject), key.public_key(), now - BACKDATED_MAX, now + CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(papers.usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    # The certificate takes its name last, after a crash by the next call: one without its key is refused above.
    write_file(certificate_file.with_suffix(".next"), certificate.public_bytes(serialization.Encoding.PEM), PUBLIC_MODE)
    write_file(key_file, papers.key_pem(key), PRIVATE_MODE)
    certificate_file.with_suffix(".next").replace(certificate_file)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder: two first calls side by side would each make an authority, one of which signs for nobody."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key_of(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        genuine = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise RequestError(f"certificate request: expected PKCS 10 in PEM form: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError("certificate request: expected a key on the curve P-256")
    if not genuine:
        raise RequestError("certificate request: its signature is not that of its own key")
    return key


def _key_sha256(key: ec.EllipticCurvePublicKey) -> str:
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _ms(when: dt.datetime) -> int:
    return int(when.timestamp()) * 1_000
