"""What may happen to a device's identity, without clocks, files or connections."""
