"""The device: source, filter, windows, ledger, spool, uplink."""
