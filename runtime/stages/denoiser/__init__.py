"""The step loop: jobs step together, row by row through the UNet, each by its own schedule."""
