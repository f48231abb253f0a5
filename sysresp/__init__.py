"""sysresp: one services.toml becomes real systemd units, applied safely and kept alive by systemd."""

__version__ = "0.1.0"
