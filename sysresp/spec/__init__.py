"""services.toml -> Spec, with every problem at its line. Pure; questions about the host are answered by others."""
