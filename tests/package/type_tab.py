"""Type into a shell as a person does, and print what the terminal shows: `type_tab.py SHELL TEXT WANTED`.

Runs inside, under the distribution's own Python: makes a terminal (pty), starts the shell in it as a login
would, waits for its prompt, types the text and one Tab, and waits until WANTED is on the screen. Exit status
1 and the screen if it is not in time. Nothing is set up for the completion: that is the package's work.
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time

SHELLS = {
    # An interactive shell of a new account; compinit is what zsh-newuser-install puts into .zshrc.
    "bash": (["bash", "--noprofile", "--rcfile", "/tmp/bashrc", "-i"], "/tmp/bashrc",
             "PS1='READY> '\n. /usr/share/bash-completion/bash_completion\n"),
    # Without bash-completion "@" ends a word.
    "bash alone": (["bash", "--noprofile", "--rcfile", "/tmp/bashrc", "-i"], "/tmp/bashrc",
                   "PS1='READY> '\n. /usr/share/bash-completion/completions/sysresp\n"),
    "zsh": (["zsh", "-i"], "/tmp/.zshrc", "PS1='READY> '\nautoload -Uz compinit\ncompinit -u\n"),
    "fish": (["fish", "-i"], "/tmp/fish/config.fish",
             "function fish_prompt; echo -n 'READY> '; end\nset -g fish_greeting\n"
             "set -g fish_autosuggestion_enabled 0\n"),
}  # fmt: skip
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|.)")
_ANSWERS = {b"\x1b[c": b"\x1b[?62;22c", b"\x1b[6n": b"\x1b[1;1R"}  # fish asks the terminal what it is


def main() -> int:
    shell, text, wanted = sys.argv[1:]
    words, path, content = SHELLS[shell]
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "w") as file:  # noqa: PTH123
        file.write(content)
    pid, fd = pty.fork()
    if pid == 0:
        env = dict(
            os.environ, TERM="xterm", ZDOTDIR="/tmp", XDG_CONFIG_HOME="/tmp", COLUMNS="100", LINES="40"
        )
        os.execvpe(words[0], words, env)
    screen = ""

    def until(what: str, seconds: float) -> bool:
        nonlocal screen
        end = time.monotonic() + seconds
        while what not in screen:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                return False
            try:
                raw = os.read(fd, 65536)
            except OSError:
                return False
            for question, answer in _ANSWERS.items():
                if question in raw:
                    os.write(fd, answer)
            screen += _ESCAPES.sub("", raw.decode(errors="replace"))
        return True

    if not until("READY> ", 20):
        print(f"no prompt: {screen!r}")
        return 1
    screen = ""
    start = time.monotonic()
    os.write(fd, text.encode() + b"\t")
    found = until(wanted, 20)
    print(f"{time.monotonic() - start:.2f}" if found else f"not completed: {screen!r}")
    os.close(fd)
    os.waitpid(pid, 0)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
