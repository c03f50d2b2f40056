"""The API's samplers as diffusers' scheduler classes: what each supports (no torch), and the schedule of a request."""
