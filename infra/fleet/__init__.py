"""Device agents on this machine: each a process of its own, in the device's environment, with its own certificate."""
