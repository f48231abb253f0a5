"""The components of a built package, as a CycloneDX 1.5 document: `sbom.py PACKAGE > PACKAGE.cdx.json`.

Owns the list that is published beside each package. For a .deb it is what the dependencies resolve to in the
root file system that this runs in, down to the C library, in the versions that are there; for an .rpm, whose
distribution is not here, the requirements as they are declared. Depends on the package's bytes, on what is
installed, and on SOURCE_DATE_EPOCH, so that the same build gives the same document.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

_STATUS = Path("/var/lib/dpkg/status")
_NAMESPACE = uuid.UUID("5f0c7d6e-7d0b-5d0e-9a53-3f1d5a0f7c11")


def _fields(stanza: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+):[ ]*(.*(?:\n[ \t].*)*)$", stanza, re.MULTILINE))


def _names(relation: str) -> list[list[str]]:
    """Return the alternatives of each dependency: "a (>= 1), b:any | c" is [["a"], ["b", "c"]]."""
    groups = [part.split("|") for part in relation.replace("\n", " ").split(",") if part.strip()]
    return [[re.split(r"[\s(:\[]", one.strip())[0] for one in group] for group in groups]


class Installed:
    """What dpkg has installed here."""

    def __init__(self, status: str) -> None:
        self.packages: dict[str, dict[str, str]] = {}
        self.provided: dict[str, str] = {}
        for stanza in status.strip().split("\n\n"):
            fields = _fields(stanza)
            if fields.get("Status", "").endswith(" installed"):
                self.packages[fields["Package"]] = fields
                for group in _names(fields.get("Provides", "")):
                    self.provided.setdefault(group[0], fields["Package"])

    def needed(self, fields: dict[str, str]) -> list[str]:
        """Return the installed packages that meet the dependencies; one that is not met is an error."""
        found = set()
        for kind in ("Pre-Depends", "Depends"):
            for group in _names(fields.get(kind, "")):
                met = [name if name in self.packages else self.provided.get(name, "") for name in group]
                chosen = next(filter(None, met), "")
                if not chosen:
                    raise SystemExit(
                        f"sbom: {fields['Package']} needs {' | '.join(group)}, which is not here"
                    )
                found.add(chosen)
        return sorted(found)


def _of_deb(fields: dict[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    installed = Installed(_STATUS.read_text())
    release = _fields(Path("/etc/os-release").read_text().replace("=", ": ").replace('"', ""))
    suite = f"debian-{release.get('VERSION_ID', 'unknown')}"

    def purl(name: str) -> str:
        of = installed.packages[name]
        version = quote(of["Version"], safe="")
        return f"pkg:deb/debian/{quote(name)}@{version}?arch={of['Architecture']}&distro={suite}"

    todo, needs = installed.needed(fields), {"": installed.needed(fields)}
    while todo:
        name = todo.pop()
        if name not in needs:
            needs[name] = installed.needed(installed.packages[name])
            todo += needs[name]
    components = [
        {
            "type": "library",
            "bom-ref": purl(name),
            "name": name,
            "version": installed.packages[name]["Version"],
            "purl": purl(name),
        }
        for name in sorted(needs)
        if name
    ]
    graph = [
        {"ref": purl(name) if name else "sysresp", "dependsOn": sorted({purl(one) for one in needs[name]})}
        for name in sorted(needs)
    ]
    return components, graph


def _of_rpm(package: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    asked = _output("rpm", "--query", "--package", "--requires", package).splitlines()
    wanted = sorted({line.strip() for line in asked if not line.startswith("rpmlib(")})
    components = [
        {
            "type": "library",
            "bom-ref": line,
            "name": line.split()[0],
            "properties": [{"name": "sysresp:requirement", "value": line}],
        }
        for line in wanted
    ]
    return components, [{"ref": "sysresp", "dependsOn": wanted}]


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def document(package: str) -> dict[str, Any]:
    """Return the document of this package file."""
    digest = hashlib.sha256(Path(package).read_bytes()).hexdigest()
    if package.endswith(".deb"):
        fields = _fields(_output("dpkg-deb", "--field", package))
        version, kind = fields["Version"], "deb/debian"
        components, graph = _of_deb(fields)
    else:
        version, kind = (
            _output("rpm", "-qp", "--queryformat", "%{VERSION}-%{RELEASE}", package),
            "rpm/sysresp",
        )
        components, graph = _of_rpm(package)
    when = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    found: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": "sysresp",
                "name": "sysresp",
                "version": version,
                "licenses": [{"license": {"id": "MIT"}}],
                "purl": f"pkg:{kind}/sysresp@{quote(version, safe='')}",
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
        },
        "components": components,
        "dependencies": graph,
    }
    found["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps(found, sort_keys=True))}"
    return found


if __name__ == "__main__":
    json.dump(document(sys.argv[1]), sys.stdout, indent=1, sort_keys=True)
    print()
