"""What a device must have before it may take events of people."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from contracts import pulls
from contracts.bundle import Bundle, Dictionary, Stream, Windows
from contracts.contract import check as check_contract
from contracts.errors import ContractError
from contracts.pulls import PullRequest
from edge_agent.config import AgentConfig, FileSource, HttpSource, MqttConfig, MqttSource, SpoolConfig, Subscription
from edge_agent.consent_terms import check_terms
from edge_agent.core.intake import Intake
from edge_agent.errors import BundleError, ConfigError
from edge_agent.pulls import Pulls
from tests.edge_agent.consenting import (
    VISITS,
    ConsentWorld,
    desk_of,
)
from tests.edge_agent.plant import CONTRACTS, bundle_of, contract, rows_of


def config_of(source: Any, key_file: str | None = "/keys/device.key") -> AgentConfig:
    mqtt = MqttConfig("127.0.0.1", 1, "ca", "cert", "key")
    return AgentConfig(
        device="d", shard=0, mqtt=mqtt, bundle_dir="bundle", spool_dir="spool", status_file="status", sources=(source,),
        spool=SpoolConfig(key_file),
    )  # fmt: skip


WINDOWS = (Windows("telemetry_windows", 1, ("duration_s",)),)
WEB = HttpSource("web", 8_640, ("visits",), "token")


@pytest.mark.parametrize(
    ("source", "change", "error", "text"),
    [
        (FileSource("f", "x.jsonl", "visits"), lambda b: b, ConfigError, "expected a socket or HTTP"),
        (MqttSource("m", "127.0.0.1", "c", (Subscription("t", "visits"),)), lambda b: b, ConfigError, "local broker"),
        (WEB, lambda b: replace(b, contracts=b.contracts[:-1]), BundleError, "expected contract consents"),
        (
            WEB,
            lambda b: replace(b, streams=(Stream("visits", windows=WINDOWS),)),
            BundleError,
            "expected no windows",
        ),
        (
            WEB,
            lambda b: replace(b, dictionaries=(Dictionary(1, "visits", "v.zdict", ""),)),
            BundleError,
            "expected no dictionary",
        ),
    ],
)  # fmt: skip
def test_a_device_that_could_not_keep_its_word_does_not_start(
    source: Any, change: Callable[[Bundle], Bundle], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        check_terms(config_of(source), change(bundle_of()))


def test_without_a_key_file_nothing_that_needs_consent_is_taken() -> None:
    with pytest.raises(ConfigError, match=r"expected spool\.key_file"):
        check_terms(config_of(WEB, None), bundle_of())
    check_terms(config_of(WEB), bundle_of())
    check_terms(config_of(replace(WEB, contracts=("clicks",)), None), bundle_of())


def test_nobody_can_ask_a_device_for_events_that_need_consent() -> None:
    world = ConsentWorld(1, [])
    _, keys = desk_of(world.disk, world)
    spool = world.opened(keys)
    plan = replace(world.plan_for(spool.epoch), pulls=contract("pulls"))
    worker = Pulls(Intake(plan, None, keys), spool, lambda _text: None)
    asked = PullRequest("0" * 16, "visits", 0, 10**15, asked_at_ms=world.now_ms(), expires_at_ms=world.now_ms() + 1_000)
    worker.hear(asked.id, pulls.encode(asked), world.now_ms())
    group = worker.advance(world.now_ms())
    assert group is not None
    (answer,) = rows_of(contract("pulls"), group.batches[0].data)
    assert answer["outcome"] == "refused"
    assert "needs consent" in answer["reason"]


@pytest.mark.parametrize(
    ("name", "text"), [("account_id", "a required string"), ("duration_s", "a required string"), ("topic", "maxLength")]
)
def test_a_contract_names_its_people_in_a_short_required_text(name: str, text: str) -> None:
    with pytest.raises(ContractError, match=text):
        check_contract(replace(VISITS, consent_field=name))
    with pytest.raises(ContractError, match="classification personal"):
        check_contract(replace(CONTRACTS["clicks"], consent_field="session_id"))
