"""Rows to sealed micro-batches and back."""
