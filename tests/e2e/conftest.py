"""A provisioned stack, and devices to use it with."""

from collections.abc import Iterator

import pytest

from infra.demo.material import Material, make_material
from infra.demo.tables import LakeReader
from infra.launcher.endpoints import Endpoints
from infra.provision import HELD_BACK_RULES, apply_rules, provision, shipped_rules


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Small data sets, the real filter, a bundle."""
    return make_material(tmp_path_factory.mktemp("material"), fraction=0.02)


@pytest.fixture(scope="session")
def endpoints(stack: Endpoints, material: Material) -> Endpoints:
    """The stack with contracts published, the CRM seeded and two rules in force."""
    provision(stack, material.bundle, material.bundle_dir, material.datasets_dir / "crm")
    rules = [rule for name, rule in shipped_rules().items() if name not in HELD_BACK_RULES]
    apply_rules(stack.kafka.bootstrap, rules)
    return stack


@pytest.fixture(scope="session")
def lake(endpoints: Endpoints) -> Iterator[LakeReader]:
    """An outside reader of the tables."""
    with LakeReader(endpoints) as reader:
        yield reader


@pytest.fixture
def device_name(request: pytest.FixtureRequest) -> str:
    """A device of the test's own, so that tests do not meet in a table."""
    return "e2e-" + request.node.name.replace("test_", "").replace("_", "-")[:50].rstrip("-").split("[")[0]
