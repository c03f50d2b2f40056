"""Evaluation of the published weights on held-out scenes."""
