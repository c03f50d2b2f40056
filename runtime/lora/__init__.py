"""LoRA files: their keys, the parameter that each key changes, and the changes that their tensors make."""
