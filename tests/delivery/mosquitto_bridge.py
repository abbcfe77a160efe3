"""A mosquitto on the device that bridges to the upstream broker: the usual way to put a queue between the two.

It is configured as safely as it can be: persistence, queues without a limit, QoS 1 all the way, MQTT 5 over TLS 1.3.
Its producer is a client that publishes with QoS 1 over loopback and counts PUBACKs.
"""

import getpass
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import Final

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from contracts import topics
from infra.setup.paths import mosquitto_binary
from tests.delivery.agent import Account, Capability, Landed, Place, Receipt, Refusal, Status
from tests.edge_agent.plant import HOST, free_port

LOCAL_TOPIC: Final = "up/0/"  # what the producer publishes on; the bridge puts `fl/v1/` before it


class BridgeLanding:
    """Every message is one event, as the producer wrote it; nothing tells a repeat from a second event."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.faults: list[str] = []
        self._events: list[Landed] = []
        self._packets = 0

    def take(self, payload: bytes) -> None:
        self._packets += 1
        try:
            event = json.loads(payload)
            self._events.append(Landed(event["number"], event.get("text"), event.get("value")))
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # one of the kit's hostile events: it has landed and says no number

    def events(self) -> Sequence[Landed]:
        return list(self._events)

    def packets(self) -> int:
        return self._packets

    def repeats(self) -> int:
        return 0

    def receipt(self, kind: Receipt = Receipt.OWN) -> None:
        return None

    def refusals(self) -> Sequence[Refusal]:
        return []

    def accounts(self) -> Sequence[Account]:
        return []

    def epoch(self) -> None:
        return None


class BridgeAgent:
    """A local broker, and the client that publishes to it."""

    def __init__(self, place: Place, persistence: str) -> None:
        self._place = place
        self._persistence = persistence
        self.landing = BridgeLanding(place.device)
        self._port = free_port()
        self._folder = place.durable_dir
        self._log_file = place.folder / "mosquitto.log"
        self._config_file = place.folder / "mosquitto.conf"
        self._processes: list[subprocess.Popen[bytes]] = []  # the newest last
        self._lock = threading.Lock()
        self._order: dict[int, int] = {}  # message id -> place of the event; ids come back after 65,535
        self._early: set[int] = set()  # ids whose PUBACK came before `publish` had returned
        self._acked: set[int] = set()
        self._accepted = 0
        self._offered = 0
        self._link_up: bool | None = None
        self._publishing = False
        self._producer = Client(
            CallbackAPIVersion.VERSION2, client_id="producer", protocol=MQTTv311, clean_session=False
        )
        self._producer.max_queued_messages_set(0)
        self._producer.reconnect_delay_set(1, 1)
        self._producer.on_publish = self._on_publish
        self._producer.on_connect = lambda client, *_: client.subscribe(topics.state(place.device), qos=1)
        self._producer.on_message = self._on_state
        self._producer.connect_async(HOST, self._port)

    @property
    def pid(self) -> int:
        return self._processes[-1].pid

    def start(self) -> None:
        self._config_file.write_text(self._config())
        with self._log_file.open("ab") as log:
            process = subprocess.Popen(
                [*self._place.enter, str(mosquitto_binary()), "-c", str(self._config_file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        if not self._publishing:
            self._publishing = True
            self._producer.loop_start()

    def signal(self, number: Signals) -> None:
        self._processes[-1].send_signal(number)

    def wait(self, deadline_s: float) -> int | None:
        try:
            return self._processes[-1].wait(deadline_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        self._producer.disconnect()
        self._producer.loop_stop()
        for process in self._processes:
            process.kill()
            process.wait()

    def offer(self, events: Sequence[bytes]) -> None:
        for event in events:
            # Not under the lock: the client calls `_on_publish` while it holds one that `publish` takes.
            message = self._producer.publish(LOCAL_TOPIC + self._place.device, event, qos=1).mid
            with self._lock:
                self._note(message, self._offered)
            self._offered += 1

    def accepted(self) -> int:
        with self._lock:
            while self._accepted in self._acked:
                self._acked.discard(self._accepted)
                self._accepted += 1
            return self._accepted

    def forget_accepted(self) -> None:
        """Nothing to do: a client forgets a message with its PUBACK."""

    def status(self) -> Status:
        running = bool(self._processes) and self._processes[-1].poll() is None
        return Status(link_up=self._link_up if running else None)

    def status_text(self) -> bytes | None:
        return None

    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def durable_files(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if path.is_file())

    def forget_everything(self) -> None:
        for path in self.durable_files():
            path.unlink()

    def move_clock(self, by_s: int) -> None:
        raise NotImplementedError("the kit cannot move mosquitto's clock")

    def says_online(self, presence: bytes) -> bool:
        return presence == b"1"

    def sums(self) -> dict[str, int]:
        return {}

    def _on_publish(self, _client: Client, _data: object, message: int, *_: object) -> None:
        with self._lock:
            self._note(message, None)

    def _note(self, message: int, place: int | None) -> None:
        """Bring together the place of an event and its PUBACK, whichever comes first."""
        if place is not None and message in self._early:
            self._early.discard(message)
            self._acked.add(place)
        elif place is not None:
            self._order[message] = place
        elif message in self._order:
            self._acked.add(self._order.pop(message))
        else:
            self._early.add(message)

    def _on_state(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._link_up = message.payload == b"1"

    def _config(self) -> str:
        place = self._place
        return f"""listener {self._port} {HOST}
allow_anonymous true
user {getpass.getuser()}
persistence true
persistence_location {self._folder}/
{self._persistence}
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 20
sys_interval 0
log_timestamp false
log_type error
log_type warning
log_type notice
connection upstream
address {place.host}:{place.fault or place.port}
topic {LOCAL_TOPIC}{place.device} out 1 "" fl/v1/
bridge_protocol_version mqttv50
bridge_attempt_unsubscribe false
remote_clientid {place.device}
cleansession false
local_cleansession false
start_type automatic
restart_timeout 1 5
keepalive_interval 15
notifications true
notification_topic {topics.state(place.device)}
bridge_cafile {place.ca_file}
bridge_certfile {place.cert_file}
bridge_keyfile {place.key_file}
bridge_tls_version tlsv1.3
"""


class MosquittoBridge:
    """Makes mosquitto bridges that write their queue after every change, or now and then as they do by default."""

    capabilities = frozenset({Capability.DISK_BYTES, Capability.STATUS_LINK})

    def __init__(self, *, saves_every_change: bool) -> None:
        self.name = "mosquitto-bridge" if saves_every_change else "mosquitto-bridge-default"
        kind = "after every change (`autosave_on_changes`)" if saves_every_change else "every 30 minutes, the default"
        self._persistence = "autosave_interval 1\nautosave_on_changes true" if saves_every_change else ""
        self.about = (
            "Debian's mosquitto on the device with a `connection` to the upstream broker: `persistence true`, saved "
            f"{kind}; queues without a limit, QoS 1, `cleansession false`, MQTT 5 over TLS 1.3. One message is one "
            "event; its producer publishes over loopback and takes the PUBACK for the acknowledgement."
        )

    def version(self) -> str:
        """Return what the program says of itself."""
        said = subprocess.run([str(mosquitto_binary()), "-h"], capture_output=True, text=True, check=False).stdout
        return said.splitlines()[0] if said else "unknown"

    def make(self, place: Place) -> BridgeAgent:
        """Install one; it is not started."""
        return BridgeAgent(place, self._persistence)
