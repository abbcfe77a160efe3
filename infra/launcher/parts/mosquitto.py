"""mosquitto: the MQTT broker, reachable only with a client certificate; the certificate's name is the user."""

import threading
from pathlib import Path
from typing import Final

from infra.launcher.accounts import SERVICE_ACCOUNT, give_folder, is_root
from infra.launcher.certificates import GATEWAY_NAME, LAUNCHER_NAME, SERVER_NAME
from infra.launcher.errors import NotReadyError, PartFailedError
from infra.launcher.files import write_file
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.settings import HOST
from infra.setup.paths import mosquitto_binary

NAME: Final = "mosquitto"
PROBE_TIMEOUT_S: Final = 3.0

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


def part(context: Context) -> Part:
    """Return the part."""
    return Part(
        name=NAME,
        title="mosquitto",
        command=(str(mosquitto_binary()), "-c", str(_home(context) / "mosquitto.conf")),
        address=f"mqtts://{HOST}:{context.settings.port('mosquitto')}",
        probe=probe,
        ports=("mosquitto",),
        owned=(_home(context),),
        user=SERVICE_ACCOUNT,
        prepare=prepare,
    )


def broker_settings(context: Context) -> str:
    """Render `mosquitto.conf`: one TLS listener, no anonymous client."""
    home = _home(context)
    lines: list[tuple[str, object]] = [
        ("per_listener_settings", "false"),
        ("allow_anonymous", "false"),
        ("acl_file", home / "acl"),
        ("persistence_location", f"{home}/"),
        *BROKER_LIMITS.items(),
        ("log_dest", "stderr"),
        ("log_type", "error"),
        ("log_type", "warning"),
        ("log_type", "notice"),
        ("connection_messages", "false"),
        ("listener", f"{context.settings.port('mosquitto')} {HOST}"),
        ("cafile", home / "ca.pem"),
        ("certfile", home / "server.pem"),
        ("keyfile", home / "server.key"),
        ("require_certificate", "true"),
        ("use_identity_as_username", "true"),
        ("tls_version", "tlsv1.3"),
    ]
    return "".join(f"{key} {value}\n" for key, value in lines)


def access_rules() -> str:
    """Render the ACL file: a device speaks under its own name only, the gateway takes all and answers all."""
    return (
        f"user {GATEWAY_NAME}\n"
        "topic read fl/v1/up/#\n"
        "topic read fl/v1/state/#\n"
        "topic write fl/v1/down/#\n"
        "\n"
        "pattern write fl/v1/up/+/%u\n"
        "pattern write fl/v1/state/%u\n"
        "pattern read fl/v1/down/%u/#\n"
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
    for file in (
        ConfigFile(home / "mosquitto.conf", broker_settings(context)),
        ConfigFile(home / "acl", access_rules()),
        ConfigFile(home / "ca.pem", server.ca_file.read_text()),
        ConfigFile(home / "server.pem", server.certificate_file.read_text()),
        ConfigFile(home / "server.key", server.key_file.read_text()),
    ):
        write_file(file.path, file.text.encode())
    if is_root():
        give_folder(home, SERVICE_ACCOUNT)


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
        client.connect(HOST, context.settings.port("mosquitto"))
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
