"""One request on Triton: the servers, an attempt, its log lines, and the output with the files' addresses."""
