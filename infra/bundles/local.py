"""The bundle repository of one copy of the stack, in its data folder: made at the first start, renewed at every one."""

import datetime as dt
from pathlib import Path
from typing import Final

from contracts.releases import DEFAULT_GROUP
from infra.bundles.repository import Published, Repository
from infra.launcher.settings import StackSettings

REPOSITORY: Final = "bundles"  # also the name of the part that serves it
GROUPS_FILE: Final = "groups.json"


def repository_home(settings: StackSettings) -> Path:
    """Return the folder of the repository."""
    return settings.data_dir / REPOSITORY


def repository_of(settings: StackSettings) -> Repository:
    """Return the repository, which need not exist yet."""
    return Repository(repository_home(settings), lambda: dt.datetime.now(dt.UTC))


def ensure_repository(settings: StackSettings) -> Repository:
    """Return the repository, made if it is missing, with what is about to expire signed anew."""
    repository = repository_of(settings)
    if repository.exists():
        repository.renew()
    else:
        repository.init()
    return repository


def publish_standard(settings: StackSettings, folder: Path) -> Published | None:
    """Publish the stack's own bundle to the default group; None when that group runs it already."""
    return ensure_repository(settings).ensure_published(DEFAULT_GROUP, folder)
