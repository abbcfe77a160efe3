"""The shared language of Fieldlake: pure values and functions that run in every environment.

An event's way through these modules: a data `contract` (read by `odcs`) names its fields, `wire` its columns,
`microbatch` its bytes, `topics` where it travels, `ledger` what became of it, `watermark` what the lake has of it;
`rules` say what to look for, `candidates` carry what may match, `decisions` what was concluded; `dead` holds what was
refused.
"""
