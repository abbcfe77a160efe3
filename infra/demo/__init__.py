"""The demo: a fleet replays real data, parts are killed on the way, and every row is accounted for."""
