"""The enrolment service: one thread answers what another has received."""

import logging
import os
import queue
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any, Final, TypeAlias

from msgspec import Struct
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts import enrolment, topics
from contracts.enrolment import MESSAGE_BYTES_MAX, Refused
from contracts.errors import EnrolmentMessageError
from contracts.ports import Clock
from gateway.enrolment import status
from gateway.enrolment.config import EnrolmentConfig
from gateway.enrolment.desk import Desk
from gateway.enrolment.session import connect_later, make_client
from gateway.enrolment.status import EnrolmentStatus
from gateway.errors import BrokerAwayError

CLIENT_ID: Final = "fieldlake-enrolment"
FILTERS: Final = ("fl/v1/enrol/+/request", "fl/v1/enrol/+/renew", "fl/v1/operator/+/+/request")
WAITING_MAX: Final = 1_000  # messages; at a millisecond each nobody waits longer than his own patience
TURN_S: Final = 0.5  # s; longest wait when nothing happens
ENFORCE_EVERY_S: Final = 1.0  # s; between two tries while the broker is away
STATUS_EVERY_S: Final = 1.0

_LOG: Final = logging.getLogger(__name__)


class Message(Struct, frozen=True):
    """A message as it came."""

    topic: str
    payload: bytes


class Subscribed(Struct, frozen=True):
    """The connection stands and the broker took our filters."""


Arrival: TypeAlias = Message | Subscribed


class Service:
    """Wires the desk to the broker. `run` returns after `stop`."""

    def __init__(self, config: EnrolmentConfig, desk: Desk, clock: Clock, ready_file: Path, status_file: Path) -> None:
        self._config, self._desk, self._clock = config, desk, clock
        self._ready_file, self._status_file = ready_file, status_file
        self._inbox: queue.Queue[Arrival | None] = queue.Queue(WAITING_MAX)
        self._stop = Event()
        self._connected = False
        self._answered: Counter[str] = Counter()
        self._enforce_at_s = self._status_at_s = 0.0
        self._client = make_client(config.mqtt, CLIENT_ID)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message

    def stop(self) -> None:
        """End `run`; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped."""
        self._ready_file.unlink(missing_ok=True)
        connect_later(self._client, self._config.mqtt)
        self._client.loop_start()
        try:
            while not self._stop.is_set():
                self._turn()
        finally:
            self._ready_file.unlink(missing_ok=True)
            self._client.disconnect()
            self._client.loop_stop()
        self._write_status()
        _LOG.info("stopped answered=%d", self._answered.total())

    def _turn(self) -> None:
        try:
            event = self._inbox.get(timeout=TURN_S)
        except queue.Empty:
            event = None
        match event:
            case Subscribed():
                self._ready_file.write_text(f"{os.getpid()}\n")
                _LOG.info("ready")
            case Message(topic=topic, payload=payload):
                self._answer(topic, payload)
        now_s = self._clock.monotonic_s()
        if self._connected and now_s >= self._enforce_at_s:
            self._enforce(now_s)
        if now_s - self._status_at_s >= STATUS_EVERY_S:
            self._status_at_s = now_s
            self._write_status()

    def _answer(self, topic: str, payload: bytes) -> None:
        """Answer a message by who sent it, which its topic says."""
        reply_to: str
        answer: enrolment.Answer | enrolment.OperatorAnswer
        match topic.split("/"):
            case ["fl", "v1", "enrol", origin, "request"] if topics.is_origin(origin):
                reply_to, answer = topics.enrol_answer(origin), self._first(origin, payload)
            case ["fl", "v1", "enrol", origin, "renew"] if topics.is_origin(origin):
                reply_to, answer = topics.certificate(origin), self._next(origin, payload)
            case ["fl", "v1", "operator", actor, session, "request"] if topics.is_origin(actor) and topics.is_origin(
                session
            ):
                reply_to, answer = topics.operator_answer(actor, session), self._operate(actor, payload)
            case _:
                _LOG.warning("refused topic=%r reason=bad_name", topic)
                return
        self._answered[_label(answer)] += 1
        self._client.publish(reply_to, enrolment.encode(answer), qos=1)

    def _first(self, origin: str, payload: bytes) -> enrolment.Answer:
        try:
            return self._desk.enrol(origin, enrolment.decode_enrol(payload))
        except EnrolmentMessageError as error:
            return Refused("bad_request", str(error))

    def _next(self, origin: str, payload: bytes) -> enrolment.Answer:
        try:
            return self._desk.renew(origin, enrolment.decode_renew(payload))
        except EnrolmentMessageError as error:
            return Refused("bad_request", str(error))

    def _operate(self, actor: str, payload: bytes) -> enrolment.OperatorAnswer:
        if actor not in self._config.operators:
            return Refused("not_an_operator", f"{actor}: not among the operators of the configuration")
        try:
            return self._desk.operate(actor, enrolment.decode_operator_request(payload))
        except EnrolmentMessageError as error:
            return Refused("bad_request", str(error))

    def _enforce(self, now_s: float) -> None:
        self._enforce_at_s = now_s
        try:
            self._desk.enforce()
        except BrokerAwayError as error:
            self._enforce_at_s = now_s + ENFORCE_EVERY_S
            _LOG.warning("broker_not_told why=%r retry_in_s=%.0f", str(error), ENFORCE_EVERY_S)

    # What paho tells, on its own thread.

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            _LOG.error("broker_refused reason=%r do=%r", str(reason), "check the enrolment service's certificate")
            return
        client.subscribe([(name, 1) for name in FILTERS])

    def _on_subscribe(
        self, client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            _LOG.error("subscription_refused do=%r", "allow the enrolment service these filters in the broker's ACL")
            client.disconnect()
            return
        self._connected = True
        self._put(Subscribed())

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._connected = False
        if not self._stop.is_set():
            _LOG.warning("broker_lost why=%r do=%r", str(reason), "check that it runs; devices ask again")

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.retain or len(message.payload) > MESSAGE_BYTES_MAX:
            _LOG.warning("refused topic=%r bytes=%d reason=retained_or_too_large", message.topic, len(message.payload))
            return
        self._put(Message(message.topic, bytes(message.payload)))

    def _put(self, event: Arrival) -> None:
        try:
            self._inbox.put_nowait(event)
        except queue.Full:
            _LOG.warning("dropped reason=too_many_waiting do=%r", "nothing: whoever asked asks again")

    def _write_status(self) -> None:
        now = EnrolmentStatus(
            pid=os.getpid(),
            connected=self._connected,
            answered=dict(self._answered),
            waiting=self._inbox.qsize(),
            updated_at_ms=self._clock.now_ms(),
        )
        try:
            status.write(self._status_file, now)
        except OSError as error:  # a full disk must not stop renewals
            _LOG.warning("status_not_written file=%s why=%r do=%r", self._status_file, str(error), "free disk space")


def _label(answer: enrolment.Answer | enrolment.OperatorAnswer) -> str:
    return answer.reason if isinstance(answer, Refused) else type(answer).__name__.lower()
