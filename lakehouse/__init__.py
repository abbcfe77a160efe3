"""Log to Iceberg: ingest, quarantine, maintenance."""
