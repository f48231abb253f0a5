"""The real service manager, files and journal behind `sysresp.ports`; the only room that imports pystemd."""
