"""The second tier: one real Triton server, many cases."""
