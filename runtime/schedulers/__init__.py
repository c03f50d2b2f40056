"""The API's samplers as diffusers' schedulers: what each can do (no torch), and the schedule that a request runs."""
