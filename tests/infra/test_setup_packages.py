"""Debian packages: who may install them, and that their services stay off."""

import pytest

from infra.setup import packages
from infra.setup.errors import MissingPrivilegeError
from infra.setup.packages import Privilege


def test_only_what_is_missing_is_wanted() -> None:
    assert packages.missing(has_mosquitto=True, has_ensurepip=True) == ()
    assert packages.missing(has_mosquitto=False, has_ensurepip=True) == ("mosquitto",)
    assert packages.missing(has_mosquitto=False, has_ensurepip=False) == ("mosquitto", "python3.11-venv")


def test_root_needs_no_prefix_and_a_user_goes_through_sudo() -> None:
    root = Privilege(is_root=True, has_apt=True, has_sudo=False, sudo_ready=False)
    user = Privilege(is_root=False, has_apt=True, has_sudo=True, sudo_ready=True)
    assert packages.prefix(("mosquitto",), root) == ()
    assert packages.prefix(("mosquitto",), user) == ("sudo", "-n")


@pytest.mark.parametrize(
    ("privilege", "found", "action"),
    [
        (
            Privilege(False, True, False, False),
            "not root and has no sudo",
            "apt-get install --no-install-recommends mos",
        ),
        (
            Privilege(False, True, True, False),
            "sudo did not let this user",
            "apt-get install --no-install-recommends mos",
        ),
        (Privilege(True, False, False, False), "no apt-get here", "install mosquitto by other means"),
    ],
)
def test_without_permission_one_line_says_which_why_and_what_to_do(
    privilege: Privilege, found: str, action: str
) -> None:
    with pytest.raises(MissingPrivilegeError) as caught:
        packages.prefix(("mosquitto",), privilege)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("package is missing: mosquitto", packages.REASONS["mosquitto"], found, action, "run again"):
        assert part in text


def test_the_system_broker_is_masked_before_its_package_arrives() -> None:
    mask, update, install = packages.install_commands(("mosquitto",), ("sudo", "-n"), has_systemd=True)
    assert mask == ("sudo", "-n", "systemctl", "mask", "mosquitto.service")
    assert update[-1] == "update"
    assert install[-1] == "mosquitto"


def test_without_systemd_the_run_level_keeps_services_off() -> None:
    commands = packages.install_commands(("mosquitto",), (), has_systemd=False)
    assert [command[-1] for command in commands] == ["update", "mosquitto"]
    assert all("RUNLEVEL=1" in command for command in commands)
