"""The agent's version, which a bundle may ask a minimum of. A constant: devices run from a folder, not a package."""

from typing import Final

AGENT_VERSION: Final = "0.1.0"
