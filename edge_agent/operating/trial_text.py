"""A trial for a terminal: what became of the sample, why, with examples, and what it would cost on the wire."""

from collections.abc import Iterator, Sequence

from contracts.ledger import Fate
from edge_agent.operating.candidate import Example
from edge_agent.operating.trial import Comparison, Trial, Why


def text_of(tried: Trial | Comparison) -> str:
    """Return a trial for a terminal."""
    if isinstance(tried, Trial):
        return "\n".join(_trial_lines(tried)) + "\n"
    lines = [*_trial_lines(tried.before), "", *_trial_lines(tried.after), ""]
    lines.append(f"{sum(change.count for change in tried.changes)} events are treated otherwise")
    for change in tried.changes:
        lines.append(f"{change.count:>9}  {_said(change.before)}  =>  {_said(change.after)}")
        lines += _example_lines(change.examples)
    return "\n".join(lines) + "\n"


def _trial_lines(trial: Trial) -> Iterator[str]:
    yield f"bundle {trial.bundle_version}, {trial.observed} events of {trial.contract}"
    yield ", ".join(f"{trial.count(fate)} {fate.value}" for fate in (Fate.KEPT, Fate.AGGREGATED, Fate.DROPPED))
    for why in trial.whys:
        yield f"{why.count:>9}  {_said(why)}"
        yield from _example_lines(why.examples)
    for rule in trial.silent_rules:
        yield f"{0:>9}  rule {rule} decided about no event"
    for sent in trial.sent:
        yield f"  {sent.contract:<24} {sent.rows} rows in {sent.batches} batches, {sent.payload_bytes} bytes"
    ratio = f", {trial.json_bytes / trial.packet_bytes:.1f} times less" if trial.packet_bytes else ""
    yield f"{trial.json_bytes} bytes as they were read, {trial.packet_bytes} would travel{ratio}"


def _said(why: Why) -> str:
    return f"{why.fate} {why.reason}" + (f" by {why.rule}" if why.rule else "")


def _example_lines(examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        score = f" score {example.score:.4f}" if example.score is not None else ""
        yield f"{'':<11}#{example.number}{score} {example.line}"
