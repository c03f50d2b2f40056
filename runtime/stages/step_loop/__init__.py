"""The step loop: one thread makes one engine call at a time, for the asks of all jobs of a stage."""
