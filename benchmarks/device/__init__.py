"""A real agent process before a real broker and a lake that counts and acknowledges: what a device is measured in."""
