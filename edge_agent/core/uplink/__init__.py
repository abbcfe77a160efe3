"""Which batch is sent next, and what is heard of the link."""
