"""The bundle's folder: its document and the files that it names, each checked by its hash."""

from collections.abc import Mapping
from pathlib import Path

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Bundle, Stream, Windows
from contracts.contract import Contract
from contracts.errors import ContractError
from contracts.offshoots import sampled_of
from edge_agent.adapters import named_files
from edge_agent.adapters.onnx import OnnxScorer
from edge_agent.core.accounts import LEDGER
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.rules import Rules
from edge_agent.core.intake import QUARANTINE, Plan
from edge_agent.core.stream import StreamPlan
from edge_agent.errors import BundleError


def load(folder: Path) -> Bundle:
    """Read the bundle's document. Raises BundleError, ContractError."""
    try:
        return bundles.decode((folder / BUNDLE_FILE).read_bytes())
    except OSError as error:
        raise BundleError(f"bundle {folder / BUNDLE_FILE}: expected a readable file: {error.strerror}") from error


def plan_of(
    bundle: Bundle, folder: Path, *, device: str, shard: int, epoch: int, streams: Mapping[str, bool], stores: bool
) -> Plan:
    """Return what the bundle says about streams, their models loaded; `streams` says whose lines are text throughout.

    With `stores` events that do not travel stay on the device a while. Raises BundleError, ContractError.
    """
    return Plan(
        device=device,
        shard=shard,
        epoch=epoch,
        ledger=bundle.contract(LEDGER),
        quarantine=bundle.contract(QUARANTINE),
        streams=tuple(
            _stream(bundle, folder, name, device, epoch, lax=lax, stores=stores) for name, lax in streams.items()
        ),
        dictionaries={
            entry.contract: named_files.read(folder, entry.file, entry.sha256, f"dictionary {entry.id}")
            for entry in bundle.dictionaries
        },
    )


def _stream(
    bundle: Bundle, folder: Path, contract_id: str, device: str, epoch: int, *, lax: bool, stores: bool
) -> StreamPlan:
    source = bundle.contract(contract_id)
    stream = bundle.stream(contract_id)
    contracts = {plan.contract: _check_windows(source, plan, bundle) for plan in stream.windows}
    return StreamPlan(
        source=source,
        filter=_filter(bundle, folder, source, stream, device, epoch),
        windows=stream.windows,
        windows_contracts=tuple(contracts.values()),
        sampled=next((c for c in bundle.contracts if c == sampled_of(source)), None),
        sample_ratio=stream.dropped_sample_ratio,
        lax=lax,
        stores=stores,
        sheds=stream.when_full == "drop",
    )


def _filter(bundle: Bundle, folder: Path, source: Contract, stream: Stream, device: str, epoch: int) -> Filter:
    rules = Rules(stream.rules, source, device, epoch) if stream.rules else None
    aggregates = stream.otherwise == "aggregate"
    if stream.model is None:
        return Filter(rules=rules, aggregates=aggregates)
    model = next((entry for entry in bundle.models if entry.id == stream.model), None)
    if model is None:
        known = ", ".join(sorted(entry.id for entry in bundle.models)) or "none"
        raise BundleError(f"bundle {bundle.version}: stream {source.id} names model {stream.model!r}, it has {known}")
    for name in model.inputs:
        _named(bundle, source, name, f"model {model.id}@{model.version}")
    if model.chunk_rows < 1:
        raise BundleError(f"model {model.id}@{model.version}: expected chunk_rows >= 1, found {model.chunk_rows}")
    data = named_files.read(folder, model.file, model.sha256, f"model {model.id}@{model.version}")
    return Filter(model, OnnxScorer(model, data), rules, aggregates=aggregates)


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
