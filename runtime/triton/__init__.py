"""The seam to Triton: what every model.py shares."""
