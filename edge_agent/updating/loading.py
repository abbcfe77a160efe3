"""Whether a staged bundle would load in the agent: the agent's own loader says so, for every contract it treats."""

from pathlib import Path

import zstandard

from contracts.bundle import Bundle
from contracts.errors import OperatorMustActError
from edge_agent.adapters import bundle_files
from edge_agent.config import ProfileName
from edge_agent.core.accounts import LEDGER
from edge_agent.core.intake import QUARANTINE
from edge_agent.core.metrics import AGENT_METRICS
from edge_agent.updating.errors import UnusableBundleError


def check(folder: Path, device: str, profile: ProfileName = "full") -> Bundle:
    """Load the bundle in a folder as the agent would and return its document. Raises UnusableBundleError."""
    try:
        bundle = bundle_files.load(folder)
        # Any contract may be a source; those with a stream of their own also bring models and windows.
        sources = {contract.id for contract in bundle.contracts} | {stream.contract for stream in bundle.streams}
        if not (sources := sources - {LEDGER, QUARANTINE, AGENT_METRICS}):
            raise UnusableBundleError(f"bundle {bundle.version}: it has no contract for a source: build it again")
        streams = dict.fromkeys(sorted(sources), False)
        plan = bundle_files.plan_of(
            bundle, folder, device=device, shard=0, epoch=0, streams=streams, stores=False, profile=profile
        )
        for entry in bundle.dictionaries:
            if entry.contract in plan.dictionaries:
                _check_dictionary(entry.id, plan.dictionaries[entry.contract])
    except OperatorMustActError as error:
        raise UnusableBundleError(f"{error}") from error
    return bundle


def _check_dictionary(number: int, data: bytes) -> None:
    found = zstandard.ZstdCompressionDict(data).dict_id()
    if found != number:
        raise UnusableBundleError(f"dictionary {number}: its file is zstd dictionary {found}: build the bundle again")
