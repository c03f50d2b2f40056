"""The interface to Triton: the base class of every model.py."""
