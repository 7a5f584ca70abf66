"""The layers of a tower, one in each file; each can be used alone."""
