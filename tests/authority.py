"""A certification authority of a test's own, made by openssl(1), and what its servers show."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


class Authority:
    """Trusted by whoever has its `certificate`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        # Since Python 3.13 a certificate that does not say what it is for is refused.
        extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        self._make("the test's authority", self.certificate, self._key, extensions)

    def server(self, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """Return a certificate for this name, and its key."""
        at, key = self._directory / "server.pem", self._directory / "server.key"
        signed = ["-CA", str(self.certificate), "-CAkey", str(self._key)]
        extensions = ["basicConstraints=critical,CA:FALSE", f"subjectAltName={name}"]
        self._make("a server", at, key, extensions, *signed)
        return at, key

    def hashed(self) -> str:
        """Return the name by which OpenSSL finds it in a directory of certificates."""
        words = ["openssl", "x509", "-hash", "-noout", "-in", str(self.certificate)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip() + ".0"

    @staticmethod
    def _make(name: str, at: Path, key: Path, extensions: list[str], *more: str) -> None:
        words = ["openssl", "req", "-x509", *_KEY, "-subj", f"/CN={name}", "-out", str(at)]
        words += ["-keyout", str(key), *more]
        for extension in extensions:
            words += ["-addext", extension]
        subprocess.run(words, check=True, capture_output=True)
