"""The networks behind the graphs: diffusers' and transformers' own modules, made without weights.

Each takes named tensors and returns named tensors; these names are the graphs' interface for every engine and the
export. A kind's libraries are imported when it is asked for: a stage starts sooner without the others'.
"""
