"""Scenes for the tests of `ports.Files`: a tree, changes of every kind, and all that can be seen of it."""

from __future__ import annotations

from pathlib import Path

from sysresp.ports import Files
from tests.fakes import FakeFiles

Change = tuple[str, str, bytes]  # verb, path, content
Tree = dict[str, tuple[object, ...]]  # path -> all that can be seen of it

ALL: tuple[Change, ...] = (
    ("write", "/a", b"new"),
    ("write", "/b", b"was a link"),
    ("link", "/d/a", b"was a file"),
    ("remove", "/d/e/a", b""),
    ("rmdir", "/d/e", b""),
    ("durable", "/new/y/z", b"made"),
    ("write", "/new/x", b"made"),
    ("link", "/new/link", b"made"),
    ("remove", "/d/a", b""),
    ("durable", "/d/a", b"again"),
    ("rmdir", "/empty", b""),
)


def do(files: Files, change: Change) -> None:
    verb, path, content = change
    match verb:
        case "write":
            files.write(path, content, 0o640)
        case "durable":
            files.write(path, content, durable=True)
        case "remove":
            files.remove(path)
        case "link":
            files.link(path, content.decode())
        case _:
            files.rmdir(path)


def scene(files: Files) -> None:
    files.write("/a", b"old", 0o600)
    files.link("/b", "/nowhere")
    files.write("/d/a", b"old in d")
    files.write("/d/e/a", b"deep", 0o755)
    files.write("/empty/x", b"")
    files.remove("/empty/x")


def fake_tree(files: FakeFiles) -> Tree:
    found: Tree = dict.fromkeys(files.dirs, ("directory",))
    for path, content in files.files.items():
        seen = files.stat(path)
        assert seen is not None
        found[path] = (content, files.modes[path], seen.inode, seen.mtime)
    return found | {path: ("link", target) for path, target in files.links.items()}


def real_tree(root: Path) -> Tree:
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        about: tuple[object, ...] = (seen.st_mode, seen.st_uid, seen.st_ino)
        if path.is_symlink():
            about += (str(path.readlink()), seen.st_mtime_ns)
        elif path.is_file():
            about += (path.read_bytes(), seen.st_mtime_ns, seen.st_nlink)
        found[f"/{path.relative_to(root)}"] = about
    return found


def change_all(files: Files) -> None:
    files.begin()
    for change in ALL:
        do(files, change)
    files.sync("/")
    files.forget()
