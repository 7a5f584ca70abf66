"""What a tower is made of, one layer a file, each usable alone."""
