"""Whether a folder of installed packages is what the device's requirements lock, no more and no less."""

import re
from importlib.metadata import distributions
from pathlib import Path

from infra.packaging.errors import PackagingError

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def pins(requirements: str) -> dict[str, str]:
    """Return versions by the normalised names (PEP 503) of a requirements file."""
    return {normalised(name): version for name, version in _PIN.findall(requirements)}


def installed(folder: Path) -> dict[str, str]:
    """Return versions by the normalised names of the packages in a folder."""
    return {normalised(found.name): found.version for found in distributions(path=[str(folder)])}


def check(folder: Path, requirements: Path) -> None:
    """Raise PackagingError unless a folder holds the locked packages."""
    wanted, found = pins(requirements.read_text(encoding="utf-8")), installed(folder)
    if wanted != found:
        different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        said = ", ".join(f"{name} {found.get(name, 'missing')} for {wanted.get(name, 'none')}" for name in different)
        raise PackagingError(f"{folder}: expected what {requirements.name} locks, found {said}: install it anew")


def normalised(name: str) -> str:
    """Return a package's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()
