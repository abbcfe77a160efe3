"""A disk so small that it can be filled: a tmpfs in a mount namespace of its own, which ends with its holder."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SIZE_BYTES: Final = 1_048_576  # bytes; a few hundred events of 1 kB each fill it
# The holder says when the disk is there and then waits for its input to end: no holder outlives the kit.
_HOLD: Final = 'mount -t tmpfs -o size="$1" none "$2" && echo there && exec cat'


class SmallDisk:
    """The folder `path` for every command that is started with `enter` before it; elsewhere the folder is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _HOLD, "sh", str(SIZE_BYTES), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"there\n":
            self.close()
            raise OSError("no file system can be mounted in a namespace of one's own here")

    @property
    def enter(self) -> tuple[str, ...]:
        """Command prefix under which the disk is there."""
        target = str(self._holder.pid)
        # Entering a mount namespace leads to its root; the command is to find the repository where the kit has it.
        there = ("sh", "-c", 'cd "$0" && exec "$@"', str(ROOT))
        return ("nsenter", "--target", target, "--user", "--mount", "--preserve-credentials", *there)

    @property
    def seen(self) -> Path:
        """Where the kit itself sees the disk."""
        return Path(f"/proc/{self._holder.pid}/root{self.path}")

    def fill(self) -> None:
        """Leave no room."""
        with (self.seen / "ballast").open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4_096)):
                    pass
            except OSError:
                return

    def free(self) -> None:
        """Give the room back."""
        (self.seen / "ballast").unlink()

    def make_read_only(self, read_only: bool) -> None:
        """Forbid or allow writing. Open files must be closed for the first to succeed."""
        mode = "ro" if read_only else "rw"
        subprocess.run([*self.enter, "mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def close(self) -> None:
        """Give it up, with everything on it."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()


def is_possible() -> bool:
    """Say whether the commands are there."""
    return all(shutil.which(name) for name in ("unshare", "nsenter"))
