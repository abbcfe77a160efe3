"""The local authority: what it signs verifies, what it did not sign does not."""

import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from infra.launcher.certificates import (
    GATEWAY_NAME,
    NAMES,
    SERVER_NAME,
    CertificatePaths,
    certificate_paths,
    ensure_certificates,
)
from infra.launcher.settings import StackSettings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> StackSettings:
    made = StackSettings(tmp_path_factory.mktemp("tls"))
    ensure_certificates(made)
    return made


def handshake(server: CertificatePaths, client: CertificatePaths, trusted: Path) -> str:
    """Shake hands in memory, both sides demanding a certificate; return the common name that the server saw."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.ca_file))
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_cert_chain(server.certificate_file, server.key_file)
    client_side = ssl.create_default_context(cafile=str(trusted))
    client_side.load_cert_chain(client.chain_file)
    buffers = [ssl.MemoryBIO() for _ in range(4)]
    left = client_side.wrap_bio(buffers[0], buffers[1], server_hostname="127.0.0.1")
    right = server_side.wrap_bio(buffers[2], buffers[3], server_side=True)
    done = {left: False, right: False}
    for _ in range(10):
        for side in (left, right):
            if not done[side]:
                try:
                    side.do_handshake()
                    done[side] = True
                except ssl.SSLWantReadError:
                    pass
        buffers[2].write(buffers[1].read())
        buffers[0].write(buffers[3].read())
    assert all(done.values())
    found = right.getpeercert()
    assert found is not None
    return str(dict(pair[0] for pair in found["subject"])["commonName"])  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in NAMES if name != SERVER_NAME])
def test_a_service_and_the_server_trust_each_other(settings: StackSettings, name: str) -> None:
    service = certificate_paths(settings, name)
    assert handshake(certificate_paths(settings, SERVER_NAME), service, service.ca_file) == name


def test_a_service_of_another_copy_is_refused(settings: StackSettings, tmp_path: Path) -> None:
    ensure_certificates(StackSettings(tmp_path))
    stranger = certificate_paths(StackSettings(tmp_path), GATEWAY_NAME)
    server = certificate_paths(settings, SERVER_NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, stranger, server.ca_file)


def test_a_service_keeps_its_certificate(settings: StackSettings) -> None:
    first = certificate_paths(settings, GATEWAY_NAME).certificate_file.read_bytes()
    ensure_certificates(settings)
    assert certificate_paths(settings, GATEWAY_NAME).certificate_file.read_bytes() == first
    subject = x509.load_pem_x509_certificate(first).subject
    assert [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [GATEWAY_NAME]


def test_certificates_made_side_by_side_share_one_authority(tmp_path: Path) -> None:
    settings = StackSettings(tmp_path)
    threads = [threading.Thread(target=ensure_certificates, args=(settings,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    authority = x509.load_pem_x509_certificate(certificate_paths(settings, "ca").ca_file.read_bytes())
    for name in NAMES:
        leaf = x509.load_pem_x509_certificate(certificate_paths(settings, name).certificate_file.read_bytes())
        leaf.verify_directly_issued_by(authority)


def test_keys_are_private(settings: StackSettings) -> None:
    for path in (settings.conf_dir / "tls").glob("*"):
        expected = 0o644 if path.suffix == ".pem" and not path.name.endswith(".chain.pem") else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
