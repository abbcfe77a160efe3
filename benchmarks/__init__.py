"""Measurements: each is run by `python -m benchmarks NAME` and writes `benchmarks/results/NAME.json`."""
