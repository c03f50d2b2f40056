"""The networks that the engines run: modules of diffusers and transformers, made without weights.

Each network takes and returns named tensors. Every engine and the export use these names. `build` imports a network's
libraries at its first use, so that a stage does not import the libraries of networks that it never runs.
"""
