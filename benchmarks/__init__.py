"""Measurements, and the inputs of perf_analyzer."""
