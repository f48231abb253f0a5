"""The command line: the composition root, and the only room that prints and exits."""
