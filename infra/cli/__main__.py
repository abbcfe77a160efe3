"""`python -m infra.cli` is `fieldlake`."""

from infra.cli import main

main()
