"""A throwaway booted copy of this host, for `sysresp rehearse`, the demo and the tests."""
