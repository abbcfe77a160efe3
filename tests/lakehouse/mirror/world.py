"""A mirror process over some store and a log in memory, driven step by step."""

from collections.abc import Iterable
from random import Random

from contracts.crm_change import CrmMessage
from lakehouse.mirror.follower import Mirror
from lakehouse.mirror.ports import Fault, MirrorStore, Step, no_fault
from lakehouse.mirror.status import MirrorStatus
from tests.lakehouse.memory import ManualClock
from tests.lakehouse.mirror.memory import MemoryChanges, Topic


class CrashError(BaseException):
    """The process ends here; nothing of ours may catch it."""


class DieAt:
    """A fault that ends the process at the n-th time that a step is reached."""

    def __init__(self, step: Step, times: int = 1) -> None:
        self._step, self._left = step, times

    def __call__(self, step: Step) -> None:
        if step is self._step:
            self._left -= 1
            if self._left == 0:
                raise CrashError(step)


def mirror_over(
    topic: Topic, store: MirrorStore, fault: Fault = no_fault, batch_max: int = 4, status: MirrorStatus | None = None
) -> Mirror:
    """A mirror that was just started."""
    return Mirror(MemoryChanges(topic), store, ManualClock(), batch_max, status or MirrorStatus(pid=1), fault)


def drain(mirror: Mirror) -> None:
    """Recover, and apply everything there is."""
    mirror.recover()
    while mirror.step():
        pass


def shuffled_in(topic: Topic, messages: Iterable[CrmMessage], rng: Random, again: float = 0.3) -> None:
    """Put messages on the log in any order, some of them twice, into any partition."""
    all_messages = list(messages)
    doubled = all_messages + [message for message in all_messages if rng.random() < again]
    rng.shuffle(doubled)
    for message in doubled:
        topic.put(message, rng.randrange(3))
