"""What a bundle asks of a device, and what it is carried out with."""

from msgspec import Struct

from contracts.contract import Contract
from edge_agent.core.codec.sealing import Sealer
from edge_agent.core.codec.unsealing import Form, Unsealer
from edge_agent.core.profile import Profile
from edge_agent.core.spool.record import Meta
from edge_agent.core.stream import Stream, StreamPlan


class Plan(Struct, frozen=True):
    """What the bundle says about a device's streams, whose filters are of the device's profile.

    `dictionaries` are zstd dictionaries by contract id, `version` and `release` are the bundle's. `earlier` are forms
    of a stream's rows in other bundles of the device: the spool may still hold such rows.
    Answers to pulls go as rows of `pulls`; without it nothing can be asked for. The device's own figures go as rows of
    `metrics`; without it they stay with it.
    """

    device: str
    shard: int
    epoch: int
    ledger: Contract
    quarantine: Contract
    streams: tuple[StreamPlan, ...]
    profile: Profile
    dictionaries: dict[str, bytes] = {}
    version: str = ""
    release: int | None = None
    earlier: dict[str, tuple[Form, ...]] = {}
    pulls: Contract | None = None
    metrics: Contract | None = None
    consents: Contract | None = None  # of the rows that tell of decisions, where a stream needs consent


class Parts:
    """What a plan is carried out with: made beforehand, so that another plan comes into force between two chunks."""

    def __init__(self, plan: Plan, newest: Meta | None = None) -> None:
        self.plan = plan
        contracts = [plan.ledger, plan.quarantine, *([plan.metrics] if plan.metrics is not None else [])]
        contracts += [c for stream in plan.streams for c in (stream.source, *stream.windows_contracts)]
        contracts += [stream.sampled for stream in plan.streams if stream.sampled is not None]
        contracts += [
            c for c in (plan.pulls, plan.consents, *(stream.pulled for stream in plan.streams)) if c is not None
        ]
        self.sealers = {c.id: Sealer(c, plan.epoch, plan.dictionaries.get(c.id, b"")) for c in contracts}
        self.unsealers = {
            stream.source.id: Unsealer(
                stream.source,
                plan.profile,
                plan.dictionaries.get(stream.source.id, b""),
                plan.earlier.get(stream.source.id, ()),
            )
            for stream in plan.streams
        }
        next_seq = newest.next_seq if newest is not None else {}
        self.streams = {
            stream.source.id: Stream(
                stream,
                plan.profile,
                plan.device,
                plan.epoch,
                next_seq.get(stream.source.id, 0),
                newest.open_windows.get(stream.source.id, ()) if newest is not None else (),
            )
            for stream in plan.streams
        }
