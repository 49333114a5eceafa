"""Looking at a guest while it stands still: disassembly and stepping."""
