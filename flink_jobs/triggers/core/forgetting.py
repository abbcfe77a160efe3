"""What a shard may forget, so that its memory follows the subjects that are active and not all there ever were.

Event times do not decide this: a device with a wrong clock, or a replay of last year's events, would make a shard
forget everyone else. The shard's own clock does, which is the time of arrival (see `ShardState`).
"""

from typing import Final

from flink_jobs.triggers.core.partials import Matches, ShardState
from flink_jobs.triggers.core.rule_set import RuleSet

SWEEP_EVERY_MS: Final = 10_000  # forgetting costs a walk over the shard; ten seconds more of memory cost nothing
SUBJECTS_PER_SHARD_MAX: Final = 16_384  # subjects; times 64 shards a million, at a few hundred bytes each


def swept(rules: RuleSet, state: ShardState) -> ShardState:
    """Forget rules that are no longer live and matches that are idle, now and then; keep within the limit, always."""
    crowded = len(state.subjects) > SUBJECTS_PER_SHARD_MAX
    if state.clock_ms - state.swept_ms < SWEEP_EVERY_MS and not crowded:
        return state
    kept = {}
    for subject, matches in state.subjects.items():
        if fresh := _fresh(rules, matches, state.clock_ms):
            kept[subject] = fresh
    return ShardState(state.clock_ms, state.clock_ms, _bounded(kept))


def _fresh(rules: RuleSet, matches: Matches, clock_ms: int) -> Matches:
    """Return the matches worth keeping; the same object when that is all of them."""
    fresh = {
        key: match
        for key, match in matches.items()
        if (watch := rules.by_key.get(key)) is not None and match.touched_ms >= clock_ms - watch.keep_ms
    }
    return matches if len(fresh) == len(matches) else fresh


def _bounded(subjects: dict[str, Matches]) -> dict[str, Matches]:
    """Drop the subjects that have been idle longest until no more than the limit are left."""
    if len(subjects) <= SUBJECTS_PER_SHARD_MAX:
        return subjects
    by_age = sorted(subjects, key=lambda subject: max(match.touched_ms for match in subjects[subject].values()))
    return {subject: subjects[subject] for subject in by_age[-SUBJECTS_PER_SHARD_MAX:]}
