"""The denoiser: rows of several jobs share UNet calls, and each job follows its own schedule."""
