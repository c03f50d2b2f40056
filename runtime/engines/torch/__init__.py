"""The torch engine: every feature, on CPU and CUDA. It is the numerical reference of the other engines."""
