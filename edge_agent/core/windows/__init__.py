"""Events counted in windows that can be merged."""
