"""On what terms a device takes events that need consent: checked before anything is opened."""

import os

from contracts.bundle import Bundle
from contracts.contract import Contract
from contracts.ports import Clock
from edge_agent.adapters.cipher import cipher_of
from edge_agent.config import AgentConfig, FileSource, MqttSource, contracts_of
from edge_agent.consent import ConsentDesk
from edge_agent.core.consent.person_keys import PersonKeys
from edge_agent.core.consent.pseudonyms import Pseudonyms
from edge_agent.core.intake import CONSENTS
from edge_agent.errors import BundleError, ConfigError, SpoolError
from edge_agent.ports import Disk


def check_terms(config: AgentConfig, bundle: Bundle) -> None:
    """Check the device's contracts that need consent.

    Raises ConfigError, BundleError when events of theirs could lie on the device where no refusal would reach them.
    """
    found: dict[str, Contract] = {}
    for source in config.sources:
        for name in contracts_of(source):
            contract = bundle.contract(name)
            if contract.consent_field is None:
                continue
            if isinstance(source, FileSource | MqttSource):
                raise ConfigError(
                    f"source {source.name!r}: contract {name} needs consent: expected a socket or HTTP: a file, or a "
                    "local broker, keeps events of people who may refuse, and the agent cannot purge them there"
                )
            found[name] = contract
    if found and config.spool.key_file is None:
        raise ConfigError(
            f"contract {min(found)} needs consent: expected spool.key_file, outside of the spool's folder: the rows of "
            "people are sealed, and a key beside them would be in every copy of the folder"
        )
    for contract in found.values():
        _check_bundle(bundle, contract)


def open_consent(disk: Disk, device_key: bytes, clock: Clock) -> tuple[ConsentDesk, PersonKeys]:
    """Return what follows people's decisions and the keys of their rows.

    Keys that a crash kept from being destroyed are destroyed. Raises ConsentError, SpoolError.
    """
    keys = PersonKeys(disk, cipher_of(device_key), cipher_of, os.urandom)
    try:
        return ConsentDesk(disk, Pseudonyms(device_key), keys, clock), keys
    except OSError as error:
        raise SpoolError(f"spool: what people have decided cannot be read: {error}: check the disk") from error


def _check_bundle(bundle: Bundle, contract: Contract) -> None:
    at = f"bundle {bundle.version}: contract {contract.id} needs consent"
    if bundle.stream(contract.id).windows:
        raise BundleError(f"{at}: expected no windows over it: a row of several events would outlive a refusal")
    if any(entry.contract == contract.id for entry in bundle.dictionaries):
        raise BundleError(f"{at}: expected no dictionary for it: it would be made of what people did")
    if all(other.id != CONSENTS for other in bundle.contracts):
        raise BundleError(f"{at}: expected contract {CONSENTS} in the bundle, whose rows tell of decisions")
