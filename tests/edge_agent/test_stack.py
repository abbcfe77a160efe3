"""An agent process against a real broker."""

import signal

import pytest

from contracts.watermark import AckDocument, Watermark
from tests.edge_agent.plant import AgentProcess, Broker, Lake, LakeClient, lines_of, reading
from tests.waiting import eventually

pytestmark = pytest.mark.stack


def fill(agent: AgentProcess, events: int, bad: tuple[int, ...] = ()) -> None:
    rows = [reading(seq, f3="warm") if seq in bad else reading(seq) for seq in range(events)]
    agent.source_file.write_bytes(b"\n".join(lines_of(rows)) + b"\n")


def test_a_file_arrives_once_and_the_ledger_adds_up(agent: AgentProcess, lake: LakeClient) -> None:
    fill(agent, 10_000, bad=(5, 7_000))
    agent.start()
    code, report = agent.wait()
    assert code == 0, agent.log()
    assert report["unexplained"] == 0
    telemetry = report["streams"]["telemetry"]
    assert (telemetry["observed"], telemetry["kept"], telemetry["committed_upto"]) == (10_000, 9_998, 10_000)
    assert telemetry["dropped"] == {"telemetry@1.0.0|f3.type": 2}
    lake.lake.assert_conserves(10_000)
    assert [row["seq"] for row in lake.lake.rows("telemetry")] == [s for s in range(10_000) if s not in (5, 7_000)]
    assert sum(row["count"] for row in lake.lake.rows("telemetry_windows")) == 9 * 9_998
    agent.start()
    assert agent.wait()[1]["streams"]["telemetry"]["kept"] == 9_998  # once more: it knows that all is done
    assert lake.lake.doubled == 0
    assert report["wire"]["payload_bytes"] * 8 <= report["wire"]["json_bytes"]


def test_a_puback_frees_nothing(agent: AgentProcess, lake: LakeClient) -> None:
    fill(agent, 2_000)
    lake.answers.clear()
    agent.start()
    eventually(lambda: agent.status().get("pending_batches") == lake.lake.received > 0, "all was taken by the broker")
    assert agent.status()["spool_bytes"] > 0
    epoch = agent.status()["epoch"]
    lake.publish_ack(AckDocument(agent.device, (Watermark(agent.device, "telemetry", epoch - 1, ((0, 10**9),), 1, 0),)))
    seen = agent.status()["ack"]
    eventually(lambda: agent.status()["ack"] != seen, "the agent has heard the watermark of an older epoch")
    assert agent.status()["pending_batches"] == lake.lake.received
    lake.publish_ack()
    code, report = agent.wait()
    assert (code, report["pending_batches"], report["unexplained"]) == (0, 0, 0)


def test_kill_9_of_agent_and_broker_costs_nothing(agent: AgentProcess, broker: Broker, lake: LakeClient) -> None:
    fill(agent, 3_000)
    agent.config["sources"][0]["rate_events_per_s"] = 1_500
    agent.start()
    eventually(lambda: lake.lake.received > 3, "some batches arrived")
    agent.kill()
    agent.start()
    eventually(lambda: len(lake.lake.rows("telemetry")) > 1_200, "it goes on where it was")
    broker.kill()
    broker.start()
    code, report = agent.wait()
    assert (code, report["unexplained"]) == (0, 0), agent.log()
    lake.lake.assert_conserves(3_000)
    assert [row["seq"] for row in lake.lake.rows("telemetry")] == list(range(3_000))
    assert sum(row["count"] for row in lake.lake.rows("telemetry_windows")) == 9 * 3_000


def test_sigterm_ends_it_cleanly_and_the_next_start_goes_on(agent: AgentProcess, lake: LakeClient) -> None:
    fill(agent, 2_000)
    agent.config["sources"][0]["rate_events_per_s"] = 1_000
    agent.start()
    eventually(lambda: lake.lake.received > 2, "some batches arrived")
    agent.signal(signal.SIGTERM)
    code, first = agent.wait()
    assert code == 0
    assert first["streams"]["telemetry"]["observed"] < 2_000
    agent.start()
    code, second = agent.wait()
    assert (code, second["epoch"]) == (0, first["epoch"])
    lake.lake.assert_conserves(2_000)


def test_an_agent_that_starts_before_anyone_subscribes_waits(agent: AgentProcess, broker: Broker) -> None:
    fill(agent, 500)
    agent.start()
    eventually(lambda: "0x10" in (agent.status().get("last_error") or ""), "the broker says that nobody subscribes")
    lake = LakeClient(broker, Lake(agent.device))
    code, report = agent.wait()
    lake.close()
    assert (code, report["unexplained"]) == (0, 0)
    lake.lake.assert_conserves(500)


def test_a_batch_the_broker_does_not_allow_is_held_and_said(agent: AgentProcess, lake: LakeClient) -> None:
    fill(agent, 500)
    agent.config["shard"] = 0
    agent.config["device"] = agent.device + "-other"  # the certificate names another
    agent.start()
    code, report = agent.wait()
    assert code == 1
    assert report["held_batches"] == report["pending_batches"] > 0
    assert "not authorised" in report["last_error"]
    assert report["unexplained"] == 0
    assert lake.lake.received == 0
