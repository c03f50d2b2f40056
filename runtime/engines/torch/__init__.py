"""The torch engine: every feature, on CPU and CUDA. It is the numerical oracle of the other engines."""
