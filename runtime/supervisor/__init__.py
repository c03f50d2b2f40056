"""Runs Triton and keeps it whole: a killed stub is not restarted by Triton, and its clients would wait for ever."""
