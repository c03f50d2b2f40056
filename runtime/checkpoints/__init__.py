"""Checkpoints as users have them: which architecture, which weight files, which names."""
