"""Event channels, virtual interrupts and timers: how a domain learns that something happened."""
