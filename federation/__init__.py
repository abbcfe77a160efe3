"""Queries across the stores: Trino catalogs and canned queries, the history endpoint."""
