"""Figures, each as a command: see benchmarks/README.md."""
