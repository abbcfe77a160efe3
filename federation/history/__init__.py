"""The record of one asset, from pruned Iceberg files straight to the person in front of it.

`follower` keeps a `view` of the table's newest snapshot beside the requests; `segments` hold the rows of its immutable
files by asset; `record` says which of them stand; `api` answers. `iceberg` is the only module that knows the store.
"""
