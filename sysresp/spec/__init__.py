"""services.toml -> Spec, with every problem at its line. Pure: others answer questions about the host."""
