"""The agent's decisions, as values and functions: no file, socket, clock or randomness is reached from here."""
