"""Jobs of a running server: the table that all processes share, and the pool that works on them."""
