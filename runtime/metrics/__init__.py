"""Metrics: their names, their values in a process, and their text for Prometheus."""
