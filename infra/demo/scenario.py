"""What the demo replays: which device reads which file, how fast, and when things happen to it."""

from typing import Final

from msgspec import Struct

FLOW_S: Final = 100  # seconds that the fleet needs for its files; long enough for 200 federated queries beside it
WARM_SHARE: Final = 0.5  # share of the flow after which things are killed


class Device(Struct, frozen=True):
    """One agent of the fleet. `rows` is the length of its file, `rate_events_per_s` what makes it last FLOW_S."""

    name: str
    contract: str
    file: str
    rows: int

    @property
    def rate_events_per_s(self) -> float:
        """Events per second that spread the file over the flow."""
        return max(1.0, self.rows / FLOW_S)


class Scenario(Struct, frozen=True):
    """A fleet, and which of its devices is killed half-way."""

    devices: tuple[Device, ...]
    victim: str

    @property
    def events(self) -> int:
        """Events in all files."""
        return sum(device.rows for device in self.devices)
