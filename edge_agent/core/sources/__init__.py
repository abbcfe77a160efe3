"""How events come in: bytes of files, sockets and messages to offers, and what their producers are told."""
