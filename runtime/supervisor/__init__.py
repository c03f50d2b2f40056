"""Runs tritonserver and restarts it after a failure.

Triton does not restart a stage's process (stub) that was killed: the stage's clients would wait forever.
"""
