"""Certificates and revocation lists, judged by OpenSSL through the standard library's TLS."""

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from edge_agent.enrolment.keys import make_request
from gateway.enrolment.authority import (
    CLAIMS,
    DEVICES,
    Authority,
    key_sha256,
    open_authority,
    private_dir,
    public_dir,
)
from gateway.enrolment.core.model import Certificate, RevokedSerial
from gateway.enrolment.lists import RevocationLists, lists_dir, prepare_for_broker
from gateway.errors import AuthorityError, BrokerAwayError, RequestError
from infra.launcher.certificates import SERVER_NAME, CertificatePaths, certificate_paths, ensure_certificates
from infra.launcher.settings import StackSettings

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
MONTH = dt.timedelta(days=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> CertificatePaths:
    settings = StackSettings(tmp_path_factory.mktemp("tls"))
    ensure_certificates(settings)
    return certificate_paths(settings, SERVER_NAME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "enrolment"


@pytest.fixture
def devices(folder: Path) -> Authority:
    return open_authority(folder, DEVICES, NOW)


def issue(authority: Authority, folder: Path, name: str) -> tuple[Certificate, Path]:
    own = folder / name
    own.mkdir(parents=True)
    issued = authority.sign(make_request(own, name).csr_pem, name, MONTH, NOW)
    (own / "certificate.pem").write_text(issued.pem)
    return issued, own


def revoked(*certificates: Certificate) -> list[RevokedSerial]:
    return [RevokedSerial(certificate.serial, int(NOW.timestamp() * 1_000)) for certificate in certificates]


def name_seen(server: CertificatePaths, own: Path, trusted: Path, lists: Path | None = None) -> str:
    """Shake hands in memory as the broker does, with lists if asked for; return the client's name."""
    right_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    right_context.verify_mode = ssl.CERT_REQUIRED
    right_context.load_verify_locations(trusted, capath=None if lists is None else str(lists))
    if lists is not None:
        right_context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    right_context.load_cert_chain(server.certificate_file, server.key_file)
    left_context = ssl.create_default_context(cafile=str(server.ca_file))
    left_context.load_cert_chain(own / "certificate.pem", own / "key.pem")
    buffers = [ssl.MemoryBIO() for _ in range(4)]
    left = left_context.wrap_bio(buffers[0], buffers[1], server_hostname="127.0.0.1")
    right = right_context.wrap_bio(buffers[2], buffers[3], server_side=True)
    for _ in range(5):
        for side in (left, right):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            finally:
                buffers[2].write(buffers[1].read())
                buffers[0].write(buffers[3].read())
    found = right.getpeercert()
    assert found
    return str(dict(pair[0] for pair in found["subject"])["commonName"])  # type: ignore[misc]


def test_a_signed_request_is_a_client_certificate_under_the_name_that_the_authority_says(
    devices: Authority, folder: Path, server: CertificatePaths, tmp_path: Path
) -> None:
    own = tmp_path / "k"
    own.mkdir()
    request = make_request(own, "someone-else")
    issued = devices.sign(request.csr_pem, "press-01", MONTH, NOW)
    (own / "certificate.pem").write_text(issued.pem)
    assert name_seen(server, own, public_dir(folder) / f"{DEVICES}.pem") == "press-01"
    assert issued.key_sha256 == request.key_sha256 == key_sha256(request.csr_pem)
    found = x509.load_pem_x509_certificate(issued.pem.encode())
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(devices.pem.encode()))
    assert f"{found.serial_number:x}" == issued.serial
    assert found.not_valid_after_utc - NOW == MONTH
    assert NOW - dt.timedelta(hours=1) <= found.not_valid_before_utc < NOW
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_claim_is_no_device_and_a_device_no_server(folder: Path, server: CertificatePaths, tmp_path: Path) -> None:
    claims, devices = open_authority(folder, CLAIMS, NOW), open_authority(folder, DEVICES, NOW)
    _, claim = issue(claims, tmp_path, "press-01")
    with pytest.raises(ssl.SSLError):
        name_seen(server, claim, public_dir(folder) / f"{DEVICES}.pem")
    issued, _ = issue(devices, tmp_path, "press-02")
    uses = x509.load_pem_x509_certificate(issued.pem.encode()).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert [use.dotted_string for use in uses.value] == ["1.3.6.1.5.5.7.3.2"]


def _foreign(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def test_a_request_that_is_none_is_refused(devices: Authority, tmp_path: Path) -> None:
    whole = make_request(tmp_path, "press-01").csr_pem
    other = _foreign(ec.generate_private_key(ec.SECP256R1()))
    lines, stolen = whole.splitlines(), other.splitlines()
    for text in (
        "", "no request", whole[:200],
        _foreign(ec.generate_private_key(ec.SECP384R1())), _foreign(rsa.generate_private_key(65_537, 2_048)),
        "\n".join([*lines[:-2], *stolen[-2:]]),  # signed by another key
    ):  # fmt: skip
        with pytest.raises(RequestError):
            devices.sign(text, "press-01", MONTH, NOW)


def test_lists_are_found_in_their_folder_and_the_newest_counts(
    devices: Authority, folder: Path, server: CertificatePaths, tmp_path: Path
) -> None:
    lists, trusted = RevocationLists(folder, devices), public_dir(folder) / f"{DEVICES}.pem"
    issued = [issue(devices, tmp_path, f"press-{number}") for number in range(4)]
    lists.make_one(NOW)
    for count, (_, own) in enumerate(issued):
        assert name_seen(server, own, trusted, lists_dir(folder)) == own.name
        lists.refuse(revoked(*(certificate for certificate, _ in issued[: count + 1])), NOW)  # all in one second
        with pytest.raises(ssl.SSLError, match="revoked"):
            name_seen(server, own, trusted, lists_dir(folder))
    assert len(list(lists_dir(folder).iterdir())) == 5
    lists.make_one(NOW)
    assert [path.name for path in lists_dir(folder).iterdir()] == [lists.first_file.name]
    for _, own in issued:
        with pytest.raises(ssl.SSLError, match="revoked"):
            name_seen(server, own, trusted, lists_dir(folder))


def test_a_list_that_says_nothing_new_is_not_written(devices: Authority, folder: Path, tmp_path: Path) -> None:
    lists = RevocationLists(folder, devices)
    certificate, _ = issue(devices, tmp_path, "press-01")
    for _ in range(3):
        lists.refuse(revoked(certificate), NOW)
    lists.refuse((), NOW)  # it has expired, and stays on the list until the next one
    assert len(list(lists_dir(folder).iterdir())) == 1


def test_lists_half_made_one_are_believed_and_continued(devices: Authority, folder: Path, tmp_path: Path) -> None:
    lists = RevocationLists(folder, devices)
    issued = [issue(devices, tmp_path, f"press-{number}")[0] for number in range(4)]
    for count in range(3):
        lists.refuse(revoked(*issued[: count + 1]), NOW)
    newest = lists_dir(folder) / lists.first_file.with_suffix(".r2").name
    lists.first_file.write_bytes(newest.read_bytes())  # a crash here: 0 is the newest, 1 and 2 are still there
    newest.unlink()
    lists.refuse(revoked(*issued), NOW)
    assert newest.exists()
    number = x509.load_pem_x509_crl(newest.read_bytes()).extensions.get_extension_for_class(x509.CRLNumber)
    assert number.value.crl_number == 3


def test_a_list_that_would_not_be_believed_waits(devices: Authority, folder: Path, tmp_path: Path) -> None:
    lists = RevocationLists(folder, devices)
    certificate, _ = issue(devices, tmp_path, "press-01")
    lists.refuse((), NOW + dt.timedelta(hours=2))  # the clock went back
    with pytest.raises(BrokerAwayError, match="later time"):
        lists.refuse(revoked(certificate), NOW)
    lists.refuse(revoked(certificate), NOW + dt.timedelta(hours=2))


def test_an_authority_is_made_once_and_kept(folder: Path) -> None:
    prepare_for_broker(folder, NOW)
    first = open_authority(folder, DEVICES, NOW).pem
    assert open_authority(folder, DEVICES, NOW).pem == first
    assert first != open_authority(folder, CLAIMS, NOW).pem
    assert folder.stat().st_mode & 0o777 == 0o711
    assert private_dir(folder).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in private_dir(folder).iterdir()} == {0o600}


def test_a_crash_while_an_authority_is_made_leaves_none_or_one(folder: Path) -> None:
    prepare_for_broker(folder, NOW)
    certificate = public_dir(folder) / f"{DEVICES}.pem"
    made = certificate.read_bytes()
    certificate.rename(certificate.with_suffix(".next"))  # key and certificate are there, under the first name
    assert open_authority(folder, DEVICES, NOW).pem.encode() == made
    certificate.rename(certificate.with_suffix(".next"))
    (private_dir(folder) / f"{DEVICES}.key").unlink()  # before the key was written
    assert open_authority(folder, DEVICES, NOW).pem.encode() != made


@pytest.mark.parametrize("damage", ["missing key", "open key", "other key", "rubbish"])
def test_a_folder_that_cannot_be_trusted_is_refused(folder: Path, damage: str) -> None:
    prepare_for_broker(folder, NOW)
    key = private_dir(folder) / f"{DEVICES}.key"
    if damage == "missing key":
        key.unlink()
    elif damage == "open key":
        key.chmod(0o644)
    elif damage == "other key":
        key.write_bytes((private_dir(folder) / f"{CLAIMS}.key").read_bytes())
    else:
        key.write_text("rubbish")
    with pytest.raises(AuthorityError, match=DEVICES):
        open_authority(folder, DEVICES, NOW)
