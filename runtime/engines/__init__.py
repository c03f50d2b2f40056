"""Engines: they run one architecture's graph with any weight set bound to it."""
