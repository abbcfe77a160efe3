"""What people have decided about their events: who waits, whose rows travel, and what a refusal leaves of them."""
