"""The shipped data contracts, read from their YAML documents."""

from pathlib import Path
from typing import Final

import yaml

from contracts.contract import Contract
from contracts.errors import ContractError
from contracts.odcs import contract_of
from infra.setup.paths import repo_root

PATTERN: Final = "*.odcs.yaml"


def documents_dir() -> Path:
    """Return the folder of the shipped documents."""
    return repo_root() / "contracts" / "documents"


def read_contracts(folder: Path | None = None) -> tuple[Contract, ...]:
    """Return every contract of a folder, by id. Raises ContractError naming the document that is wrong."""
    paths = sorted((folder or documents_dir()).glob(PATTERN))
    return tuple(read_contract(path) for path in paths)


def read_contract(path: Path) -> Contract:
    """Return the contract of one document. Raises ContractError."""
    if not path.is_file():
        raise ContractError(f"{path}: expected a contract document, found no file")
    try:
        return contract_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ContractError(f"{path.name}: expected YAML: {error}") from error
