"""A local certificate authority for the stack's own identities; devices have another, the enrolment service's.

Files under `<conf>/tls`: `ca.pem`, `ca.key`, `<name>.pem` (certificate), `<name>.key` (PKCS 8), and
`<name>.chain.pem` (key, then certificate) for parts that read one file. Keys are readable by their owner only.
"""

import contextlib
import datetime as dt
import fcntl
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from gateway.enrolment import papers
from infra.launcher.files import PRIVATE, PUBLIC, write_file
from infra.launcher.settings import StackSettings

CA_VALID: Final = dt.timedelta(days=3_650)
LEAF_VALID: Final = dt.timedelta(days=397)
RENEW_BEFORE: Final = dt.timedelta(days=30)
# A client whose clock lags a little must not refuse a certificate made just now.
BACKDATED: Final = dt.timedelta(hours=1)

SERVER_NAME: Final = "server"
GATEWAY_NAME: Final = "gateway"
LAUNCHER_NAME: Final = "launcher"
ENROLMENT_NAME: Final = "enrolment"
OPERATOR_NAME: Final = "operator"
NAMES: Final = (SERVER_NAME, GATEWAY_NAME, LAUNCHER_NAME, ENROLMENT_NAME, OPERATOR_NAME)


class CertificatePaths(Struct, frozen=True):
    """Where one identity lies. `chain_file` is key and certificate in one PEM file."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    chain_file: Path


def certificate_paths(settings: StackSettings, name: str) -> CertificatePaths:
    """Return where the certificate with this common name lies, or will lie."""
    folder = settings.conf_dir / "tls"
    return CertificatePaths(
        ca_file=folder / "ca.pem",
        certificate_file=folder / f"{name}.pem",
        key_file=folder / f"{name}.key",
        chain_file=folder / f"{name}.chain.pem",
    )


def ensure_certificates(settings: StackSettings) -> None:
    """Make the authority and the stack's own certificates where they are missing or run out soon."""
    for name in NAMES:
        _ensure_leaf(settings, name)


def _ensure_leaf(settings: StackSettings, name: str) -> CertificatePaths:
    with _one_at_a_time(settings):
        return _current_leaf(settings, name)


@contextlib.contextmanager
def _one_at_a_time(settings: StackSettings) -> Iterator[None]:
    """Two first calls side by side would each make an authority, and one of them would sign for nobody."""
    folder = settings.conf_dir / "tls"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _current_leaf(settings: StackSettings, name: str) -> CertificatePaths:
    paths = certificate_paths(settings, name)
    authority, authority_key = _ensure_authority(settings)
    if paths.chain_file.exists():
        found = x509.load_pem_x509_certificate(paths.certificate_file.read_bytes())
        if found.issuer == authority.subject and found.not_valid_after_utc > _now() + RENEW_BEFORE:
            return paths
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(name, key, authority, authority_key)
    certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_file(paths.certificate_file, certificate_pem, PUBLIC)
    write_file(paths.key_file, papers.key_pem(key), PRIVATE)
    write_file(paths.chain_file, papers.key_pem(key) + certificate_pem, PRIVATE)
    return paths


def _ensure_authority(settings: StackSettings) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    paths = certificate_paths(settings, "ca")
    if paths.key_file.exists() and paths.ca_file.exists():
        key = serialization.load_pem_private_key(paths.key_file.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(paths.ca_file.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = f"Fieldlake local authority {settings.instance}", _now()
    certificate = (
        papers.builder(subject, papers.named(subject), key.public_key(), now - BACKDATED, now + CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(papers.usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_file(paths.key_file, papers.key_pem(key), PRIVATE)
    write_file(paths.ca_file, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC)
    return certificate, key


def _leaf(
    name: str, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    is_server = name == SERVER_NAME
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if is_server else [])
    now = _now()
    builder = (
        papers.builder(name, authority.subject, key.public_key(), now - BACKDATED, now + LEAF_VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(papers.usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(_authority_identifier(authority), critical=False)
    )
    if is_server:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _authority_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
