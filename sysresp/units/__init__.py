"""Spec -> unit files: names, quoting, templates, directive tables, the two encodings. Pure."""
