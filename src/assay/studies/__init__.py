"""One module a paper, named by its id with underscores."""
