"""The local launcher: the whole stack as plain processes under one supervisor."""
