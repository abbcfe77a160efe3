"""Debian packages: which are missing, and the commands that install them without starting their services."""

from dataclasses import dataclass
from typing import Final

from infra.setup.errors import MissingPrivilegeError

REASONS: Final = {
    "mosquitto": "the MQTT broker, the one part that no Python wheel or Java artifact carries",
    "python3.11-venv": "without it Python 3.11 cannot make an environment",
}
# Another apt run (unattended upgrades, most often) holds the lock for a minute or two.
APT_LOCK_TIMEOUT_S: Final = 180


@dataclass(frozen=True, slots=True)
class Privilege:
    """What the user may do: `sudo_ready` is a sudo that asks for no password (any more)."""

    is_root: bool
    has_apt: bool
    has_sudo: bool
    sudo_ready: bool


def missing(has_mosquitto: bool, has_ensurepip: bool) -> tuple[str, ...]:
    """Return the packages to install."""
    return tuple(
        name for name, present in (("mosquitto", has_mosquitto), ("python3.11-venv", has_ensurepip)) if not present
    )


def prefix(wanted: tuple[str, ...], privilege: Privilege) -> tuple[str, ...]:
    """Return what stands before a command that needs root.

    Raises:
        MissingPrivilegeError: with one line that names the packages, why, and the command to run.
    """
    if privilege.has_apt and privilege.is_root:
        return ()
    if privilege.has_apt and privilege.sudo_ready:
        return ("sudo", "-n")
    why = "; ".join(f"{name}: {REASONS[name]}" for name in wanted)
    if not privilege.has_apt:
        found, action = "there is no apt-get here", f"install {' and '.join(wanted)} by other means"
    else:
        found = "sudo did not let this user through" if privilege.has_sudo else "this user is not root and has no sudo"
        action = f"let an administrator run 'apt-get install --no-install-recommends {' '.join(wanted)}'"
    noun = "package is" if len(wanted) == 1 else "packages are"
    raise MissingPrivilegeError(f"Debian {noun} missing: {' '.join(wanted)} ({why}); {found}: {action}, and run again")


def install_commands(
    wanted: tuple[str, ...], before: tuple[str, ...], has_systemd: bool
) -> tuple[tuple[str, ...], ...]:
    """Return the commands, in order.

    The broker's package starts a system-wide broker on port 1883. It must not: we run our own with our own settings,
    and nothing of ours may listen without authentication. Under systemd the unit is masked beforehand; without it,
    run level 1 keeps the service scripts from starting anything.
    """
    env = (*before, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
    apt = (*env, "apt-get", "-o", f"DPkg::Lock::Timeout={APT_LOCK_TIMEOUT_S}", "-q")
    mask = ((*before, "systemctl", "mask", "mosquitto.service"),) if has_systemd and "mosquitto" in wanted else ()
    return (*mask, (*apt, "update"), (*apt, "install", "-y", "--no-install-recommends", *wanted))
