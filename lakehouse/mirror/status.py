"""What the mirror says about itself."""

from msgspec import Struct


class MirrorStatus(Struct):
    """Counters since the process started, and the state at `updated_at_ms`.

    `waiting_for` names what is down. `age_ms` is how old the newest change of the last batch was when it was visible,
    by the clock of the connector that captured it.
    """

    pid: int
    ready: bool = False
    waiting_for: str = ""
    batches: int = 0
    changes: dict[str, int] = {}  # by table
    records_written: int = 0
    snapshots_swept: int = 0
    dead: dict[str, int] = {}  # dead letters, by reason code
    lag: int = 0  # messages between the last commit and the end of the log
    last_batch_ms: float = 0.0
    last_batch_at_ms: int = 0
    age_ms: int = 0
    recoveries: int = 0
    last_error: str = ""
    last_error_at_ms: int = 0
    updated_at_ms: int = 0
