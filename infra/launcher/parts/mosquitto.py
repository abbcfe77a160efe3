"""mosquitto: the MQTT broker. A certificate opens the listener of its authority; its name is the user."""

import datetime as dt
import threading
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.enrolment.authority import CLAIMS, DEVICES, public_dir
from gateway.enrolment.lists import lists_dir, prepare_for_broker
from infra.launcher.accounts import SERVICE_ACCOUNT, give_folder, is_root, open_way
from infra.launcher.certificates import (
    ENROLMENT_NAME,
    GATEWAY_NAME,
    LAUNCHER_NAME,
    OPERATOR_NAME,
    SERVER_NAME,
)
from infra.launcher.errors import NotReadyError, PartFailedError
from infra.launcher.files import write_file
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.settings import HOST
from infra.setup.paths import mosquitto_binary

NAME: Final = "mosquitto"
PROBE_TIMEOUT_S: Final = 3.0
FIRST_LIST: Final = "devices.crl"

BROKER_LIMITS: Final = {
    "persistence": "true",
    # Persistence is a snapshot: what a crash takes with it, the devices' spools still hold.
    "autosave_interval": 30,
    "max_inflight_messages": 2_000,
    "max_inflight_bytes": 0,
    "max_queued_messages": 200_000,
    "max_queued_bytes": 1_073_741_824,
    "max_packet_size": 1_048_576,
    "memory_limit": 3_221_225_472,
    "persistent_client_expiration": "7d",
    "set_tcp_nodelay": "true",
}


class Listener(Struct, frozen=True):
    """One way into the broker: who may come, by the authority of his certificate, and what he may do there.

    With `name_is_id` the common name is the client id too: nobody takes over a session under another's name.
    """

    port: str
    ca_file: Path
    rules: str
    name_is_id: bool
    lists_dir: Path | None = None

    @property
    def rules_file(self) -> str:
        """Name of its ACL file."""
        return f"acl-{self.port}"


def part(context: Context) -> Part:
    """Return the part."""
    return Part(
        name=NAME,
        title="mosquitto",
        command=(str(mosquitto_binary()), "-c", str(_home(context) / "mosquitto.conf")),
        address=f"mqtts://{HOST}:{context.settings.port('mosquitto')}",
        probe=probe,
        ports=tuple(listener.port for listener in listeners(context)),
        owned=(_home(context),),
        user=SERVICE_ACCOUNT,
        prepare=prepare,
        environment={"OPENSSL_CONF": str(_tls_file(context))},
    )


def listeners(context: Context) -> tuple[Listener, ...]:
    """Return every way in. No certificate opens two of them but those of our own services."""
    public, folder = public_dir(identity_dir(context)), _home(context)
    return (
        Listener("mosquitto", public / f"{DEVICES}.pem", device_rules(), True, lists_dir(identity_dir(context))),
        Listener("mosquitto_bootstrap", public / f"{CLAIMS}.pem", bootstrap_rules(), True),
        Listener("mosquitto_services", folder / "ca.pem", service_rules(), False),
    )


def identity_dir(context: Context) -> Path:
    """Return the enrolment service's folder."""
    return context.data(ENROLMENT_NAME)


def tls_settings() -> str:
    """Render OpenSSL's configuration for the broker: no session tickets, which would open a connection unchecked."""
    return (
        "openssl_conf = settings\n\n"
        "[settings]\nssl_conf = protocols\n\n"
        "[protocols]\nsystem_default = every_listener\n\n"
        "[every_listener]\nNumTickets = 0\n"
    )


def broker_settings(context: Context) -> str:
    """Render `mosquitto.conf`: TLS listeners, no anonymous client."""
    home = _home(context)
    lines: list[tuple[str, object]] = [
        ("per_listener_settings", "true"),
        ("persistence_location", f"{home}/"),
        *BROKER_LIMITS.items(),
        ("log_dest", "stderr"),
        ("log_type", "error"),
        ("log_type", "warning"),
        ("log_type", "notice"),
        ("connection_messages", "false"),
    ]
    for listener in listeners(context):
        lines += [
            ("listener", f"{context.settings.port(listener.port)} {HOST}"),
            ("allow_anonymous", "false"),
            ("acl_file", home / listener.rules_file),
            ("cafile", listener.ca_file),
            # One list, so that lists are heeded at all, and the folder in which later ones are found.
            *([("crlfile", home / FIRST_LIST), ("capath", listener.lists_dir)] if listener.lists_dir else []),
            ("certfile", home / "server.pem"),
            ("keyfile", home / "server.key"),
            ("require_certificate", "true"),
            ("use_identity_as_username", "true"),
            ("use_username_as_clientid", "true" if listener.name_is_id else "false"),
            ("tls_version", "tlsv1.3"),
        ]
    return "".join(f"{key} {value}\n" for key, value in lines)


def device_rules() -> str:
    """Render the ACL of devices: each speaks under its own name and hears what is sent to it, nothing else.

    The broker grants any subscription and then delivers by these rules: what is not named here never arrives.
    """
    return (
        "pattern write fl/v1/up/+/%u\n"
        "pattern write fl/v1/state/%u\n"
        "pattern write fl/v1/enrol/%u/renew\n"
        "pattern read fl/v1/down/%u/#\n"
    )


def bootstrap_rules() -> str:
    """Render the ACL of claim certificates: ask for a certificate under the name claimed, hear the answer."""
    return "pattern write fl/v1/enrol/%u/request\npattern read fl/v1/enrol/%u/answer\n"


def service_rules() -> str:
    """Render the ACL of our own services.

    The gateway takes all and answers all, but hands out no certificates and asks for no raw data: operators do.
    """
    return (
        f"user {GATEWAY_NAME}\n"
        "topic deny fl/v1/down/+/certificate\n"
        "topic deny fl/v1/down/+/pull/#\n"
        "topic read fl/v1/up/#\n"
        "topic read fl/v1/state/#\n"
        "topic write fl/v1/down/#\n"
        "\n"
        f"user {ENROLMENT_NAME}\n"
        "topic read fl/v1/enrol/+/request\n"
        "topic read fl/v1/enrol/+/renew\n"
        "topic read fl/v1/operator/+/+/request\n"
        "topic write fl/v1/enrol/+/answer\n"
        "topic write fl/v1/down/+/certificate\n"
        "topic write fl/v1/operator/+/+/answer\n"
        "\n"
        f"user {OPERATOR_NAME}\n"
        f"topic write fl/v1/operator/{OPERATOR_NAME}/+/request\n"
        f"topic read fl/v1/operator/{OPERATOR_NAME}/+/answer\n"
        "topic read fl/v1/state/+\n"
        "topic write fl/v1/down/+/pull/+\n"
    )


def prepare(context: Context) -> None:
    """Write configuration and certificates where the broker's own account may read them."""
    if not mosquitto_binary().exists():
        raise PartFailedError(
            f"mosquitto: {mosquitto_binary()} does not exist; "
            "install the Debian package with `apt-get install mosquitto`"
        )
    home = _home(context)
    server = context.certificate(SERVER_NAME)
    lists = prepare_for_broker(identity_dir(context), dt.datetime.now(dt.UTC))
    for file in (
        ConfigFile(home / "mosquitto.conf", broker_settings(context)),
        *(ConfigFile(home / listener.rules_file, listener.rules) for listener in listeners(context)),
        ConfigFile(_tls_file(context), tls_settings()),
        ConfigFile(home / FIRST_LIST, lists.first_file.read_text()),
        ConfigFile(home / "ca.pem", server.ca_file.read_text()),
        ConfigFile(home / "server.pem", server.certificate_file.read_text()),
        ConfigFile(home / "server.key", server.key_file.read_text()),
    ):
        write_file(file.path, file.text.encode())
    if is_root():
        give_folder(home, SERVICE_ACCOUNT)
        open_way(lists_dir(identity_dir(context)))


def probe(context: Context) -> None:
    """Connect with a client certificate and wait for the broker's answer."""
    from paho.mqtt import client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    own = context.certificate(LAUNCHER_NAME)
    answered = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="launcher-probe", protocol=mqtt.MQTTv5)
    client.tls_set(ca_certs=str(own.ca_file), certfile=str(own.certificate_file), keyfile=str(own.key_file))
    client.on_connect = lambda _client, _data, _flags, reason, _properties: (
        None if reason.is_failure else answered.set()
    )
    try:
        client.connect(HOST, context.settings.port("mosquitto_services"))
    except OSError as error:
        raise NotReadyError(f"mosquitto: {error}") from None
    client.loop_start()
    try:
        if not answered.wait(PROBE_TIMEOUT_S):
            raise NotReadyError(f"mosquitto: no CONNACK within {PROBE_TIMEOUT_S} s")
    finally:
        client.disconnect()
        client.loop_stop()


def _home(context: Context) -> Path:
    return context.data(NAME)


def _tls_file(context: Context) -> Path:
    return _home(context) / "openssl.cnf"
