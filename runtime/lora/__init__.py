"""LoRA files: which keys speak of which parameter, and the low-rank factors that they hold."""
