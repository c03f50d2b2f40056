"""The demo model: a small latent diffusion model, trained from scratch on pictures that this package draws."""
