"""The device's log: records on disk, what a start makes of them, and what may go."""
