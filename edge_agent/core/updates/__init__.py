"""How certificates and bundles are replaced while the agent runs."""
