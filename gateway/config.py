"""Configuration of the gateway, parsed once from the file named on the command line."""

from msgspec import Struct


class MqttConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker; the certificate's common name is the gateway's user name."""

    host: str
    port: int
    ca_file: str
    cert_file: str
    key_file: str


class GatewayConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway process owns one shard of the devices."""

    kafka_bootstrap: str
    mqtt: MqttConfig
    shard: int = 0
