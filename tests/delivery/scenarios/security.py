"""Brokers that cannot be trusted, papers that have expired, and what others can read."""

import datetime
import shutil
import ssl
from typing import Final

from tests.delivery.case import Case, Upstream, observe, scenario
from tests.delivery.events import event
from tests.delivery.site import Site
from tests.edge_agent.plant import Certificates

AN_HOUR_AGO: Final = datetime.timedelta(hours=-1)
SECRET: Final = "the-content-of-an-event"


def tries_in_vain(site: Site, case: Case, name: str, tls: ssl.SSLContext | None) -> None:
    """Start the agent, have it try a broker twice, and check that it never came as far as a CONNECT. It goes on."""
    broker = site.scripted
    broker.start(tls)
    site.proxy.upstream_port = broker.port
    site.agent.start()
    hellos, seen = broker.hellos, len(site.proxy.attempts_s)
    case.need(lambda: len(site.proxy.attempts_s) >= seen + 2, "it tries to connect")
    case.check(name, broker.hellos == hellos, "it has sent its CONNECT")


@scenario("D-190", "D-191", "D-192", "D-193", "D-197", "D-196", upstream=Upstream.SCRIPTED, opened=False, slow=True)
def broker_cannot_be_trusted(site: Site, case: Case) -> None:
    """One after another: another authority, an expired certificate, another host, no TLS; then the right broker."""
    folder = site.folder / "strangers"
    folder.mkdir()
    stranger = Certificates(folder).issue("scripted")
    expired = site.certificates.issue("expired", ends_in=AN_HOUR_AGO)
    elsewhere = site.certificates.issue("elsewhere", address="192.0.2.1")
    site.offer(0, 30)
    tries_in_vain(site, case, "D-190", site.tls(stranger))
    case.until(
        "D-197", lambda: "certificate" in (site.agent.status().last_error or ""), lambda: str(site.agent.status()), 10
    )
    for name, tls in (("D-191", site.tls(expired)), ("D-192", site.tls(elsewhere)), ("D-193", None)):
        site.stop()
        tries_in_vain(site, case, name, tls)
    case.check("D-193", not site.scripted.publishes, "events went out in clear")
    case.need(site.is_accepted, "everything is accepted")
    site.scripted.start(site.tls())
    case.until("D-196", lambda: site.has(0, 30), site.absent(0, 30), 60)


@scenario("D-194", "D-195", upstream=Upstream.SCRIPTED, opened=False)
def broker_speaks_old_tls(site: Site, case: Case) -> None:
    """It offers TLS 1.1 at most, then 1.2 at most, then 1.2 and 1.3."""
    site.offer(0, 10)
    old = site.tls(versions=(ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1))
    old.set_ciphers("ALL:@SECLEVEL=0")
    tries_in_vain(site, case, "D-194", old)
    site.scripted.start(site.tls(versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)))
    seen = len(site.proxy.attempts_s)
    case.need(lambda: len(site.proxy.attempts_s) > seen, "it tries to connect")
    observe(2)
    case.check("D-195", not site.scripted.hellos, "it connects by TLS 1.2")
    site.scripted.start(site.tls())
    site.proxy.cut()
    case.need(lambda: site.has(0, 10), "the events arrive over the newest TLS")
    case.check("D-195", "TLSv1.3" in site.scripted.tls_versions, site.scripted.tls_versions)


@scenario("D-198")
def own_certificate_has_expired(site: Site, case: Case) -> None:
    """The broker refuses the device until it has a new certificate."""
    good = (site.place.cert_file, site.place.key_file)
    site.place.cert_file, site.place.key_file = site.certificates.issue("device-1-old", ends_in=AN_HOUR_AGO)
    site.offer(0, 20)
    site.agent.start()
    case.need(site.is_accepted, "everything is accepted")
    case.need(lambda: len(site.proxy.attempts_s) >= 2, "it tries to connect")
    case.check("D-198", not site.heard, "the broker took it")
    shutil.copyfile(good[0], site.place.cert_file)
    shutil.copyfile(good[1], site.place.key_file)
    site.stop()
    site.agent.start()
    case.until("D-198", lambda: site.has(0, 20), site.absent(0, 20))


@scenario("D-199")
def configured_as_another_device(site: Site, case: Case) -> None:
    """Its certificate names one device, its configuration another."""
    site.place.device = "device-2"
    site.offer(0, 20)
    site.agent.start()
    case.need(site.is_accepted, "everything is accepted")
    case.need(lambda: site.proxy.bytes_up > 1_000, "it connects")
    observe(3)
    case.check("D-199", site.heard == 0, f"{site.heard} messages came through")


@scenario("D-200", "D-201", "D-202")
def what_others_can_read(site: Site, case: Case) -> None:
    """Modes of stored files; key material and events in log and status."""
    site.offer_lines([event(0, SECRET), b'{"subject":"' + SECRET.encode() + b'"', event(1, SECRET)])
    site.agent.start()
    case.need(lambda: site.has(0, 2), "the events arrive")
    site.proxy.cut()
    site.deliver(case, 2, 3)
    site.stop()
    files = site.agent.durable_files()
    loose = [f"{path.name} {path.stat().st_mode & 0o777:o}" for path in files if path.stat().st_mode & 0o077]
    case.check("D-200", bool(files) and not loose, loose or "nothing is stored")
    said = site.agent.log() + (site.agent.status_text() or b"").decode()
    key = site.place.key_file.read_text().splitlines()[1]
    case.check("D-201", key not in said and "PRIVATE KEY" not in said, "the key is in the log")
    case.check("D-202", SECRET not in site.agent.log(), "events are in the log")
