"""Signed bundles for devices: files over HTTPS, to each device those of its own group, and their announcement."""
