"""Grant tables: how a domain lets another one use a frame."""
