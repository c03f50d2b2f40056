"""The logic of each Triton model, importable and testable without Triton."""
