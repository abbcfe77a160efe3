"""The parts of the stack, one module each: rendered configuration, command line, probe."""
