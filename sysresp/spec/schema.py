"""The table of keys as JSON Schema for editors, and as rows for the manual.

Owns the shape of both; what they say comes from sysresp.spec.keys alone. The schema is shipped as
services.schema.json beside this file, and a test keeps it equal to what is made here.
Rule: the schema accepts every file that `parse` accepts, so that no editor underlines what is right; it may
accept more, where only `parse` can tell.
"""

from __future__ import annotations

import json
from typing import Any

from sysresp.spec.keys import SERVICE_TABLE, TOP
from sysresp.spec.types import Converted, Key, MapOf, Schema, Table, Type, described
from sysresp.spec.values import SERVICE_NAME


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of services.toml; one layer of several fits it too."""
    service = {"$ref": "#/$defs/service"}
    places: dict[str, Schema] = {
        "defaults": service,
        "services": {
            "type": "object",
            "propertyNames": SERVICE_NAME.schema(),
            "additionalProperties": service,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "services.toml of sysresp",
        "type": "object",
        "properties": {
            key.name: {"description": key.doc, **places[key.name]} if key.name in places else described(key)
            for key in TOP.values()
        },
        "additionalProperties": False,
        "$defs": {"service": SERVICE_TABLE.schema()},
    }


def text() -> str:
    """Return the schema as the file that is shipped."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def documented() -> list[tuple[str, str, str, str]]:
    """Return (dotted key, type, default, documentation) of every key, in the order of the manual."""
    rows: list[tuple[str, str, str, str]] = []
    for key in TOP.values():
        if key.type is SERVICE_TABLE:
            rows.append((key.name, key.type.text, key.default, key.doc))
        else:
            _document(key, "", rows)
    for key in SERVICE_TABLE.keys.values():
        _document(key, "services.NAME.", rows)
    return rows


def _document(key: Key, upper: str, rows: list[tuple[str, str, str, str]]) -> None:
    name = f"{upper}{key.name}"
    rows.append((name, key.type.text, key.default, key.doc))
    for inner, below in _tables(key.type, name):
        for child in inner.keys.values():
            _document(child, f"{below}.", rows)


def _tables(kind: Type, name: str) -> list[tuple[Table, str]]:
    """Return the tables of keys that are written below a key of this type, with their dotted names."""
    match kind:
        case Table():
            return [(kind, name)]
        case MapOf():
            return _tables(kind.item, f"{name}.NAME")
        case Converted():
            return _tables(kind.base, name)
    return [found for choice in getattr(kind, "choices", {}).values() for found in _tables(choice, name)]
