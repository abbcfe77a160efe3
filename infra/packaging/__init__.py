"""The Debian package of the agent, and the service that runs it."""
