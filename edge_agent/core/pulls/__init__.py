"""Events that somebody asks for later: where they lie in the log, which are meant, how far an answer has come."""
