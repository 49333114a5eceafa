"""Who runs next: schedulers behind one protocol."""
