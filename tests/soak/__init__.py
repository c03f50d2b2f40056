"""The fourth tier, by `make soak` alone: one server for a long time."""
