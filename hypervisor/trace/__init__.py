"""Recording what happened at each entry into the hypervisor, and reading it again."""
