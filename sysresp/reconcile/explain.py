"""systemd's numbers and words, said so that a person understands them.

Owns the tables of job results, Result= values, exit statuses of a child that could not execute its program
(systemd.exec(5), "Process Exit Codes") and signals, and which key of a service each of them points at. Pure.
Rule: an unknown value is shown as it is, since systemd's lists grow; nothing is guessed.
"""

from __future__ import annotations

import signal

EXITED = 1  # CLD_EXITED, as ExecMainCode has it
KILLED = 2  # CLD_KILLED
DUMPED = 3  # CLD_DUMPED

# status: name, what it means, the key of the service that is to blame
_EXEC: dict[int, tuple[str, str, str]] = {
    200: ("CHDIR", "its directory cannot be entered", "directory"),
    201: ("NICE", "its nice level cannot be set", "nice"),
    202: ("FDS", "its file descriptors cannot be passed on", "listen"),
    203: ("EXEC", "the program could not be executed", "command"),
    204: ("MEMORY", "there was not enough memory to start it", "limits"),
    205: ("LIMITS", "a resource limit cannot be set", "limits"),
    206: ("OOM_ADJUST", "its OOM score cannot be set", "systemd"),
    207: ("SIGNAL_MASK", "its signal mask cannot be set", "systemd"),
    208: ("STDIN", "its standard input cannot be opened", "systemd"),
    209: ("STDOUT", "its standard output cannot be opened", "systemd"),
    210: ("CHROOT", "its root directory cannot be entered", "systemd"),
    211: ("IOPRIO", "its I/O priority cannot be set", "systemd"),
    212: ("TIMERSLACK", "its timer slack cannot be set", "systemd"),
    213: ("SECUREBITS", "its secure bits cannot be set", "hardening"),
    214: ("SETSCHEDULER", "its CPU scheduling cannot be set", "systemd"),
    215: ("CPUAFFINITY", "its CPU affinity cannot be set", "systemd"),
    216: ("GROUP", "its group does not exist, or cannot be taken on", "group"),
    217: ("USER", "its user does not exist, or cannot be taken on", "user"),
    218: ("CAPABILITIES", "its capabilities cannot be set", "hardening"),
    219: ("CGROUP", "its control group cannot be set up", "limits"),
    220: ("SETSID", "its session cannot be made", "systemd"),
    221: ("CONFIRM", "its start was refused on the console", "systemd"),
    222: ("STDERR", "its standard error cannot be opened", "systemd"),
    224: ("PAM", "its PAM session cannot be opened", "user"),
    225: ("NETWORK", "its network namespace cannot be set up", "hardening"),
    226: (
        "NAMESPACE",
        "its file system namespace cannot be set up: a path in it may be missing",
        "hardening",
    ),
    227: ("NO_NEW_PRIVILEGES", "NoNewPrivileges= cannot be set", "hardening"),
    228: ("SECCOMP", "its system call filter cannot be set", "hardening"),
    229: ("SELINUX_CONTEXT", "its SELinux context cannot be set", "systemd"),
    230: ("PERSONALITY", "its personality cannot be set", "hardening"),
    231: ("APPARMOR_PROFILE", "its AppArmor profile cannot be set", "systemd"),
    232: ("ADDRESS_FAMILIES", "its address families cannot be restricted", "hardening"),
    233: ("RUNTIME_DIRECTORY", "its runtime directory cannot be made", "runtime_directory"),
    235: ("CHOWN", "its socket's owner cannot be set", "listen"),
    236: ("SMACK_PROCESS_LABEL", "its SMACK label cannot be set", "systemd"),
    237: ("KEYRING", "its kernel keyring cannot be set up", "systemd"),
    238: ("STATE_DIRECTORY", "its state directory cannot be made", "state_directory"),
    239: ("CACHE_DIRECTORY", "its cache directory cannot be made", "cache_directory"),
    240: ("LOGS_DIRECTORY", "its logs directory cannot be made", "logs_directory"),
    241: (
        "CONFIGURATION_DIRECTORY",
        "its configuration directory cannot be made",
        "configuration_directory",
    ),
    242: ("NUMA_POLICY", "its NUMA policy cannot be set", "systemd"),
    243: ("CREDENTIALS", "its credentials cannot be set up: a file of them may be missing", "credentials"),
    244: ("BPF", "its BPF restrictions cannot be set", "hardening"),
}

_JOB = {
    "done": "the job is done",
    "canceled": "the job was canceled by another one",
    "timeout": "the job timed out",
    "failed": "the job failed",
    "dependency": "a unit that it requires could not be started",
    "skipped": "the job does not apply to the unit's state",
    "invalid": "the job does not apply to the unit's state",
    "assert": "an assertion of the unit is not met",
    "unsupported": "this kind of unit is not supported here",
    "collected": "the job was dropped: the unit was not needed any more",
    "once": "the unit may be started only once and was",
    "frozen": "the unit is frozen",
    "concurrency": "its slice runs as many units as it may",
}

# Result=: what it means, the key to blame
_RESULT = {
    "resources": ("systemd could not set it up (a file or a limit that it needs)", "limits"),
    "protocol": ("it did not start as its kind promises: no READY=1, no PID file, or no bus name", "kind"),
    "timeout": ("it took too long", "start_timeout"),
    "exit-code": ("it exited with a failure", "command"),
    "signal": ("it was killed by a signal", "command"),
    "core-dump": ("it crashed and dumped core", "command"),
    "watchdog": ("it did not answer the watchdog in time", "watchdog"),
    "start-limit-hit": ("it was started too often in too short a time", "restart.attempts"),
    "oom-kill": ("the kernel killed it for want of memory", "limits.memory"),
    "exec-condition": ("its ExecCondition= says that it is not to run", "conditions"),
    "service-start-limit-hit": ("its service was started too often in too short a time", "restart.attempts"),
    "trigger-limit-hit": ("it was triggered too often in too short a time", "listen"),
    "unit-start-limit-hit": ("its service was started too often in too short a time", "restart.attempts"),
}

_REFUSED = {
    "NoSuchUnit": "systemd cannot find the unit",
    "UnitMasked": "the unit is masked",
    "BadUnitSetting": "systemd cannot use the unit file",
    "LoadFailed": "systemd cannot load the unit file",
    "UnitExists": "a unit of this name is there already",
    "JobTypeNotApplicable": "the unit cannot do that",
    "TransactionOrderIsCyclic": "the units wait for each other in a circle",
    "TransactionIsDestructive": "another job for the unit is in the way",
}


def job_words(result: str) -> str:
    """Return what this job result means."""
    return _JOB.get(result, f"the job ended with {result!r}")


def refused_words(code: str, message: str) -> str:
    """Return why systemd refused a job: the last part of the D-Bus error's name, and its message."""
    known = _REFUSED.get(code)
    return f"{known}: {message}" if known else message


def signal_name(number: int) -> str:
    """Return "SIGKILL" for 9; real-time signals as kill(1) writes them."""
    try:
        return signal.Signals(number).name
    except ValueError:
        minimum = int(signal.SIGRTMIN)
        return f"SIGRTMIN+{number - minimum}" if number > minimum else f"signal {number}"


def exit_words(code: int, status: int) -> str:
    """Return how a process ended, by ExecMainCode and ExecMainStatus; "" for exit status 0."""
    if code in (KILLED, DUMPED):
        return f"killed by {signal_name(status)}" + (", core dumped" if code == DUMPED else "")
    if code != EXITED or status == 0:
        return ""
    if status in _EXEC:
        name, meaning, _ = _EXEC[status]
        return f"{meaning} ({status}/{name})"
    if status > 128 and status - 128 in signal.valid_signals():
        return f"exit status {status} (as a shell says for {signal_name(status - 128)})"
    return f"exit status {status}"


def result_words(result: str, code: int, status: int, *, control: str = "") -> str:
    """Return why a unit failed; `control` is the key of the command beside the main one that failed."""
    if control == "ready":
        return "it was not ready in time"
    if control:
        how = exit_words(code, status)
        return f"its {control} command failed" + (f": {how}" if how else "")
    if result in ("exit-code", "signal", "core-dump"):
        how = exit_words(code, status)
        if how:
            return how
    return _RESULT[result][0] if result in _RESULT else ("" if result in ("", "success") else result)


def cause_key(result: str, code: int = 0, status: int = 0, *, control: str = "") -> str:
    """Return the key of the service that is to blame, "" if none can be named.

    A program may itself exit with 200 or more: then the key is wrong, but so are the words of systemctl.
    """
    if control:
        return control
    if result == "exit-code" and code == EXITED and status in _EXEC:
        return _EXEC[status][2]
    return _RESULT[result][1] if result in _RESULT else ""
