"""Engines: each runs the graph of one architecture with any bound weight set."""
