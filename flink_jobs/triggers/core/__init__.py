"""The rule evaluator: pure values and functions, no Flink, no Arrow.

`rule_table` is the set of live rules and `rule_set` the same made ready, `conditions` what one event satisfies,
`partials` what a key shard remembers, `forms` patterns made ready, `matching` how one completes, `forgetting` what may
go, `evaluator` all of it over one candidate message, `state_codec` the state's bytes, `examples` what documents say of
themselves, played.
"""
