"""Import asyncio without ssl, for a daemon that speaks no TLS and should be small.

Owns that one trick. asyncio imports ssl for transports that the controller never makes: 4 MB of memory for
as long as it runs, and a tenth of its start. asyncio takes an ImportError for "built without ssl", and so it
is given one. The rule: call it before anything imports asyncio; afterwards `import ssl` works for others.
"""

from __future__ import annotations

import sys


def import_asyncio() -> None:
    """Import asyncio so that it does not import ssl; nothing to do if either is there already."""
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment] # what import takes for "cannot be imported"
    try:
        import asyncio  # noqa: F401, PLC0415 - that it stays in sys.modules is the effect
    finally:
        del sys.modules["ssl"]
