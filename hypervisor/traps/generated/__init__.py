"""What programs made: the first line of each file names the one."""
