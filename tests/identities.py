"""Device certificates for a broker that runs without its enrolment service: signed by the authority directly."""

import datetime as dt

from edge_agent.adapters.identity import Generation
from edge_agent.core.updates.renewal import Validity
from edge_agent.enrolment.keys import make_request
from gateway.enrolment.authority import DEVICES, open_authority
from infra.launcher.endpoints import Endpoints
from infra.launcher.model import Context
from infra.launcher.parts import mosquitto
from infra.launcher.secrets import peek_secrets
from infra.launcher.settings import StackSettings

VALID = dt.timedelta(days=1)


def issue_identity(settings: StackSettings, device: str, valid: dt.timedelta = VALID) -> Generation:
    """Return a key with a certificate that no registry knows."""
    context = Context(settings, peek_secrets(settings))
    now = dt.datetime.now(dt.UTC)
    folder = settings.state_dir / "identities" / device
    folder.mkdir(parents=True, exist_ok=True)
    authority = open_authority(mosquitto.identity_dir(context), DEVICES, now)
    issued = authority.sign(make_request(folder, device).csr_pem, device, valid, now)
    certificate = folder / "certificate.pem"
    certificate.write_text(issued.pem)
    validity = Validity(issued.not_before_ms, issued.not_after_ms)
    return Generation(1, str(certificate), str(folder / "key.pem"), validity)


def identify(endpoints: Endpoints, device: str) -> Generation:
    """The same for `infra.fleet.agent.prepare`."""
    return issue_identity(endpoints.settings(), device)


def client_files(settings: StackSettings, device: str) -> tuple[str, str, str]:
    """Return authority, certificate and key file, as a TLS client takes them."""
    identity = issue_identity(settings, device)
    return str(settings.conf_dir / "tls" / "ca.pem"), identity.cert_file, identity.key_file
