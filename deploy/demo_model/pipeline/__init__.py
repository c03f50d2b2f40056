"""The networks, the tokenizer and the diffusers pipelines of the demo model."""
