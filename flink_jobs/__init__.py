"""Jobs on Flink: `triggers` turns behaviour into decisions."""
