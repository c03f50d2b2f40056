"""What the torch engine does on a GPU: parity, and speed against diffusers. It runs without Triton."""
