"""Beside the commits: small files are merged, files that nothing refers to are removed."""
