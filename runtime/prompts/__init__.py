"""Prompts: weights, chunks, token ids, and the vectors of textual inversions."""
