"""The preselector: micro-batches in, the rows that some live rule may want out. Runs outside Flink, with Arrow.

`documents` follows contracts, dictionaries and rules; `decoding` turns many batches into one table; `row_filter` is the
vectorised OR of all live rules; `grouping` makes one message per batch and key shard; `rounds` keeps offsets back until
the log has the messages; `process` runs them in this order.
"""
