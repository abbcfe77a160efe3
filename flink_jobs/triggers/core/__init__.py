"""The rule evaluator: pure values and functions, no Flink, no Arrow.

`rule_table` is the set of live rules and `rule_set` the same made ready, `conditions` what one event satisfies,
`partials` what a key shard remembers, `matching` how a pattern completes, `forgetting` what may go, `evaluator` all of
it over one candidate message, `state_codec` the state's bytes.
"""
