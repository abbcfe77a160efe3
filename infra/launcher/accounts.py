"""Unprivileged accounts for parts that refuse to run as root, and the rights these need on our folders."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Final

from infra.launcher.errors import PartFailedError

SERVICE_ACCOUNT: Final = "fieldlake"


def is_root() -> bool:
    """Say whether the launcher runs as root."""
    return os.geteuid() == 0


def ensure_account(name: str) -> None:
    """Make the system account when it is missing; needs root."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        result = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise PartFailedError(
                f"account {name}: useradd failed ({result.stderr.strip()}); create it, or run as an ordinary user"
            ) from None


def give_folder(path: Path, account: str) -> None:
    """Make a folder, hand it with all it holds to the account, and let the account reach it."""
    path.mkdir(parents=True, exist_ok=True)
    open_way(path)
    entry = pwd.getpwnam(account)
    for folder, _, names in os.walk(path):
        shutil.chown(folder, entry.pw_uid, entry.pw_gid)
        for name in names:
            os.chown(os.path.join(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def open_way(path: Path) -> None:
    """Let every account pass through (not list) the folders above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod((mode & 0o7777) | 0o011)
