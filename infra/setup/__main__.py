"""Everything a fresh machine needs, with the system's python3: python3 -m infra.setup

A second run does only what is missing.
"""

import fcntl
import json
import signal
import sys
import time
from contextlib import contextmanager

if sys.version_info[:2] != (3, 11):
    sys.exit(
        f"set-up: expected Python 3.11, found {sys.version.split()[0]} ({sys.executable}): the lock files are made "
        "for 3.11; install it (Debian 12: apt-get install python3) and run 'make PYTHON=/path/to/python3.11 setup'"
    )

from collections.abc import Iterator
from types import FrameType

from infra.setup import packages, paths, plan, runner, survey
from infra.setup.errors import DiskSpaceError, SetupError
from infra.setup.programs import Programs
from infra.setup.steps import Doer, remove_leftovers


def main() -> int:
    """Bring the machine up to date and return the exit code."""
    started_s = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        wanted = survey.wanted_packages()
        if not plan.needed(survey.steps(wanted), survey.stamps(wanted)):
            return 0
        with _only_one():
            return _do_missing(started_s)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"set-up: {runner.explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run again to go on from here", file=sys.stderr)
        return 130


def _do_missing(started_s: float) -> int:
    wanted = survey.wanted_packages()
    missing = plan.needed(survey.steps(wanted), survey.stamps(wanted))
    if lacks := plan.shortfalls(missing, *survey.rooms()):
        raise DiskSpaceError("; ".join(lacks))
    root_prefix = packages.prefix(wanted, survey.privilege()) if wanted else ()
    print(f"set-up: {', '.join(step.name for step in missing)}", flush=True)
    remove_leftovers()
    programs = Programs(paths.cache_dir() / "logs")
    doer = Doer(programs, wanted, root_prefix)
    actions = {step.name: doer.action(step) for step in missing}
    try:
        failed = runner.run(missing, actions, runner.Board(sys.stdout), programs.stop)
    finally:
        programs.stop()  # a step that could not write its log has left its program running
    took_s = time.monotonic() - started_s
    if failed:
        print(
            f"set-up: failed after {took_s:.0f} s: {', '.join(failed)}; the reasons stand above. "
            "What is done is kept: mend the cause and run again",
            file=sys.stderr,
        )
        return 1
    paths.last_setup_file().write_text(json.dumps({"ended_at_s": time.time(), "seconds": round(took_s, 1)}))
    print(f"set-up: complete after {took_s:.0f} s")
    return 0


@contextmanager
def _only_one() -> Iterator[None]:
    """Wait until no other set-up of this user writes to the cache or to an environment."""
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    with (paths.cache_dir() / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another set-up is running, waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
