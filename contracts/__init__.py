"""The shared language of Fieldlake: pure values and functions that run in every environment.

An event's way through these modules: a data `contract` (read by `odcs`) names its fields, `wire` its columns,
`microbatch` its bytes, `topics` where it travels, `ledger` what became of it, `watermark` what the lake has of it;
`rules` say what to look for, `candidates` carry what may match, `decisions` what was concluded; `dead` holds what was
refused. A `bundle` tells a device what to do with its events: `edge_rules` (read by `edge_rule_check`) which of them to
keep, `lite_model` the filter model without its runtime; `sampling` draws the sample of what was not kept, from which
`recall` says what the filter missed.
"""
