"""The bundle's folder: its document and the files that it names, each checked by its hash."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Bundle, Windows
from contracts.contract import Contract
from contracts.errors import ContractError
from contracts.offshoots import pulled_of, sampled_of
from contracts.pulls import PULLS
from edge_agent.adapters import named_files
from edge_agent.config import ProfileName
from edge_agent.core.accounts import LEDGER
from edge_agent.core.intake import CONSENTS, QUARANTINE
from edge_agent.core.metrics import AGENT_METRICS
from edge_agent.core.plan import Plan
from edge_agent.core.profile import EventFilter, Profile
from edge_agent.core.stream import StreamPlan
from edge_agent.errors import BundleError

FilterOf: TypeAlias = Callable[[Bundle, Path, str, str, int], EventFilter]


def load(folder: Path) -> Bundle:
    """Read the bundle's document. Raises BundleError, ContractError."""
    try:
        return bundles.decode((folder / BUNDLE_FILE).read_bytes())
    except OSError as error:
        raise BundleError(f"bundle {folder / BUNDLE_FILE}: expected a readable file: {error.strerror}") from error


def plan_of(
    bundle: Bundle,
    folder: Path,
    *,
    device: str,
    shard: int,
    epoch: int,
    streams: Mapping[str, bool],
    stores: bool,
    profile: ProfileName = "full",
) -> Plan:
    """Return what the bundle says about streams, their models loaded; `streams` says whose lines are text throughout.

    With `stores` events that do not travel stay on the device a while. Raises BundleError, ContractError.
    """
    holding, filter_of = _kit(profile)
    plans = tuple(
        _stream(bundle, name, filter_of(bundle, folder, name, device, epoch), lax=lax, stores=stores)
        for name, lax in streams.items()
    )
    # Of the others' dictionaries, some 70 KB each, this device has no need.
    written = {
        LEDGER,
        QUARANTINE,
        AGENT_METRICS,
        PULLS,
        *(contract.id for plan in plans for contract in _written(plan)),
    }
    return Plan(
        device=device,
        shard=shard,
        epoch=epoch,
        ledger=bundle.contract(LEDGER),
        quarantine=bundle.contract(QUARANTINE),
        metrics=next((contract for contract in bundle.contracts if contract.id == AGENT_METRICS), None),
        streams=plans,
        profile=holding,
        version=bundle.version,
        release=bundle.release.number if bundle.release is not None else None,
        dictionaries={
            entry.contract: named_files.read(folder, entry.file, entry.sha256, f"dictionary {entry.id}")
            for entry in bundle.dictionaries
            if entry.contract in written
        },
        pulls=next((contract for contract in bundle.contracts if contract.id == PULLS), None),
        consents=next((contract for contract in bundle.contracts if contract.id == CONSENTS), None),
    )


def _kit(profile: ProfileName) -> tuple[Profile, FilterOf]:
    """Import one profile and nothing of the other: numpy and ONNX Runtime are 50 MB."""
    if profile == "lite":
        from edge_agent.lite.bundle_filter import lite_filter_of
        from edge_agent.lite.lists import LISTS

        return LISTS, lite_filter_of
    from edge_agent.adapters.bundle_filter import filter_of
    from edge_agent.core.arrays import ARRAYS

    return ARRAYS, filter_of


def _stream(bundle: Bundle, contract_id: str, events: EventFilter, *, lax: bool, stores: bool) -> StreamPlan:
    source = bundle.contract(contract_id)
    stream = bundle.stream(contract_id)
    contracts = {plan.contract: _check_windows(source, plan, bundle) for plan in stream.windows}
    return StreamPlan(
        source=source,
        filter=events,
        windows=stream.windows,
        windows_contracts=tuple(contracts.values()),
        sampled=next((c for c in bundle.contracts if c == sampled_of(source)), None),
        sample_ratio=stream.dropped_sample_ratio,
        lax=lax,
        stores=stores,
        sheds=stream.when_full == "drop",
        pulled=next((c for c in bundle.contracts if c == pulled_of(source)), None),
    )


def _written(plan: StreamPlan) -> tuple[Contract, ...]:
    """Return the contracts that a stream's events become rows of."""
    offshoots = (plan.sampled, plan.pulled)
    return (plan.source, *plan.windows_contracts, *(contract for contract in offshoots if contract is not None))


def _check_windows(source: Contract, plan: Windows, bundle: Bundle) -> Contract:
    contract = bundle.contract(plan.contract)
    for name in plan.sensors:
        _named(bundle, source, name, "windows")
        if not source.field(name).required:
            raise BundleError(f"bundle {bundle.version}: windows over {source.id}.{name}: the field must be required")
    if source.event_time_field is None or not source.field(source.event_time_field).required:
        raise BundleError(f"bundle {bundle.version}: windows over {source.id}: it must have a required event time")
    if source.subject_field is not None and not source.field(source.subject_field).required:
        raise BundleError(f"bundle {bundle.version}: windows over {source.id}: its subject field must be required")
    if contract.subject_field is None or contract.event_time_field is None:
        raise BundleError(
            f"bundle {bundle.version}: contract {contract.id}: windows need subject and event time fields"
        )
    return contract


def _named(bundle: Bundle, source: Contract, name: str, what: str) -> None:
    try:
        source.field(name)
    except ContractError as error:
        raise BundleError(f"bundle {bundle.version}: {what} over {source.id}: {error}") from error
