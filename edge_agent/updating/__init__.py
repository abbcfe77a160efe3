"""Fetching, checking and staging bundles, in a short-lived process: the agent's own never loads what that takes."""
