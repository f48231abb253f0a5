"""The one table of directives: where each belongs, since when, what a change needs, how D-Bus spells it.

Owns what is known about every directive of systemd.unit(5), .service(5), .socket(5), .timer(5), .path(5),
.exec(5), .kill(5) and .resource-control(5). Never holds a value.

A change takes effect at daemon-reload where PID 1 reads the setting only when it needs it (stop commands,
Restart=, timeouts), or applies it anew after every reload: unit_deserialize in src/core/unit-serialize.c
invalidates the cgroup of a running unit, so that its limits are written again. All else was fixed when the
process was forked.

Rule: where it is not known that a running unit follows a change, the change is `restart`.
"""

from __future__ import annotations

from typing import NamedTuple

OLDEST = 232
"""Stands for "every systemd that still runs somewhere"."""


class Directive(NamedTuple):
    """One row."""

    sections: tuple[str, ...]
    since: int  # first version of systemd that knows it
    restart: bool  # a running unit follows a change only when it is restarted
    encoding: str  # how a transient unit is told (sysresp.units.transient); "" if it cannot be told


_KINDS = {
    "unit": ("Unit",),
    "install": ("Install",),
    "service": ("Service",),
    "socket": ("Socket",),
    "both": ("Service", "Socket"),
    "timer": ("Timer",),
    "path": ("Path",),
    "triggers": ("Timer", "Path"),
    "limits": ("Socket", "Path"),
    "cgroup": ("Service", "Socket", "Slice"),
}

# kind, since, restart, encoding, names
_ROWS: tuple[tuple[str, int, bool, str, str], ...] = (
    # [Unit]: dependencies and texts are read anew at every daemon-reload, the rest when a job runs.
    ("unit", OLDEST, False, "s", "Description SourcePath CollectMode OnFailureJobMode JobTimeoutAction"
     " JobTimeoutRebootArgument StartLimitAction FailureAction SuccessAction RebootArgument"),
    ("unit", OLDEST, False, "as", "Requires Requisite Wants BindsTo Conflicts Before After OnFailure"
     " PropagatesReloadTo ReloadPropagatedFrom PartOf JoinsNamespaceOf RequiresMountsFor"),
    ("unit", OLDEST, False, "pages", "Documentation"),
    ("unit", OLDEST, False, "b", "StopWhenUnneeded RefuseManualStart RefuseManualStop AllowIsolate"
     " DefaultDependencies IgnoreOnIsolate"),
    ("unit", OLDEST, False, "time", "JobTimeoutSec JobRunningTimeoutSec StartLimitIntervalSec"),
    ("unit", OLDEST, False, "u", "StartLimitBurst"),
    ("unit", OLDEST, False, "", "StartLimitInterval BindTo OnFailureIsolate RequiresOverridable"
     " RequisiteOverridable PropagateReloadTo PropagateReloadFrom"),
    ("unit", 240, False, "i", "FailureActionExitStatus SuccessActionExitStatus"),
    ("unit", 249, False, "as", "Upholds OnSuccess PropagatesStopTo StopPropagatedFrom"),
    ("unit", 249, False, "s", "OnSuccessJobMode"),
    ("unit", 256, False, "as", "WantsMountsFor"),
    ("unit", OLDEST, False, "condition", "ConditionPathExists ConditionPathExistsGlob"
     " ConditionPathIsDirectory ConditionPathIsSymbolicLink ConditionPathIsMountPoint"
     " ConditionPathIsReadWrite ConditionDirectoryNotEmpty ConditionFileNotEmpty"
     " ConditionFileIsExecutable ConditionNeedsUpdate ConditionFirstBoot ConditionArchitecture"
     " ConditionVirtualization ConditionHost ConditionKernelCommandLine ConditionKernelVersion"
     " ConditionSecurity ConditionCapability ConditionACPower ConditionUser ConditionGroup"
     " ConditionControlGroupController AssertPathExists AssertPathExistsGlob AssertPathIsDirectory"
     " AssertPathIsSymbolicLink AssertPathIsMountPoint AssertPathIsReadWrite AssertDirectoryNotEmpty"
     " AssertFileNotEmpty AssertFileIsExecutable AssertNeedsUpdate AssertFirstBoot AssertArchitecture"
     " AssertVirtualization AssertHost AssertKernelCommandLine AssertKernelVersion AssertSecurity"
     " AssertCapability AssertACPower AssertUser AssertGroup AssertControlGroupController"),
    ("unit", 246, False, "condition", "ConditionPathIsEncrypted AssertPathIsEncrypted"),
    ("unit", 247, False, "condition", "ConditionEnvironment ConditionMemory ConditionCPUs"
     " AssertEnvironment AssertMemory AssertCPUs"),
    ("unit", 248, False, "condition", "ConditionCPUFeature AssertCPUFeature"),
    ("unit", 249, False, "condition", "ConditionFirmware ConditionOSRelease AssertOSRelease"
     " AssertFirmware"),
    ("unit", 250, False, "condition", "ConditionMemoryPressure ConditionCPUPressure ConditionIOPressure"
     " AssertMemoryPressure AssertCPUPressure AssertIOPressure"),
    ("unit", 252, False, "condition", "ConditionCredential AssertCredential"),
    ("unit", 257, False, "condition", "ConditionVersion AssertVersion"),
    ("unit", 258, False, "condition", "ConditionKernelModuleLoaded AssertKernelModuleLoaded"),
    # [Install] is read by `systemctl enable` only.
    ("install", OLDEST, False, "", "Alias WantedBy RequiredBy Also DefaultInstance"),
    ("install", 254, False, "", "UpheldBy"),
    # [Service]
    ("service", OLDEST, True, "s", "Type PIDFile BusName NotifyAccess USBFunctionDescriptors"
     " USBFunctionStrings"),
    ("service", OLDEST, True, "exec", "ExecStartPre ExecStart ExecStartPost"),
    ("service", 243, True, "exec", "ExecCondition"),
    ("service", OLDEST, False, "exec", "ExecReload ExecStop ExecStopPost"),
    ("service", 259, False, "exec", "ExecReloadPost"),
    ("service", OLDEST, False, "time", "RestartSec TimeoutStartSec TimeoutStopSec RuntimeMaxSec"),
    ("service", OLDEST, True, "time", "WatchdogSec"),
    ("both", OLDEST, False, "", "TimeoutSec"),
    ("service", 243, False, "time", "TimeoutAbortSec"),
    ("service", 250, False, "time", "RuntimeRandomizedExtraSec"),
    ("service", OLDEST, False, "s", "Restart"),
    ("service", 243, False, "s", "OOMPolicy"),
    ("service", 246, False, "s", "TimeoutStartFailureMode TimeoutStopFailureMode"),
    ("service", 254, False, "s", "RestartMode"),
    ("service", 254, False, "u", "RestartSteps"),
    ("service", 254, False, "time", "RestartMaxDelaySec"),
    ("service", 259, False, "", "RefreshOnReload"),
    ("service", OLDEST, False, "status", "RestartPreventExitStatus RestartForceExitStatus"
     " SuccessExitStatus"),
    ("service", OLDEST, True, "b", "RootDirectoryStartOnly RemainAfterExit GuessMainPID"
     " PermissionsStartOnly"),
    ("service", OLDEST, False, "b", "RemainAfterExit"),
    ("service", OLDEST, True, "u", "FileDescriptorStoreMax"),
    ("service", OLDEST, True, "", "Sockets NonBlocking"),
    ("service", 250, True, "s", "ExitType"),
    ("service", 253, False, "signal", "ReloadSignal"),
    ("service", 253, True, "", "OpenFile"),
    ("service", 254, True, "s", "FileDescriptorStorePreserve"),
    # systemd.kill(5): read when the unit is stopped.
    ("both", OLDEST, False, "s", "KillMode"),
    ("both", OLDEST, False, "signal", "KillSignal"),
    ("both", OLDEST, False, "b", "SendSIGKILL SendSIGHUP"),
    ("both", 240, False, "signal", "WatchdogSignal FinalKillSignal"),
    ("both", 244, False, "signal", "RestartKillSignal"),
    # systemd.exec(5): the process has had it since its fork.
    ("both", OLDEST, True, "s", "RootDirectory RootImage User Group TTYPath UtmpIdentifier UtmpMode"
     " SyslogIdentifier ProtectSystem ProtectHome PAMName SELinuxContext Personality KeyringMode"
     " RuntimeDirectoryPreserve"),
    ("both", OLDEST, True, "directory", "WorkingDirectory"),
    ("both", OLDEST, True, "b", "DynamicUser RemoveIPC TTYReset TTYVHangup TTYVTDisallocate"
     " SyslogLevelPrefix NoNewPrivileges MemoryDenyWriteExecute RestrictRealtime LockPersonality"
     " PrivateDevices ProtectKernelTunables ProtectKernelModules PrivateNetwork PrivateUsers"
     " PrivateMounts PrivateTmp ProtectControlGroups MountAPIVFS IgnoreSIGPIPE CPUSchedulingResetOnFork"),
    ("both", OLDEST, True, "as", "SupplementaryGroups PassEnvironment UnsetEnvironment ReadWritePaths"
     " ReadOnlyPaths InaccessiblePaths RuntimeDirectory StateDirectory CacheDirectory LogsDirectory"
     " ConfigurationDirectory SystemCallArchitectures"),
    ("both", OLDEST, True, "i", "Nice OOMScoreAdjust CPUSchedulingPriority IOSchedulingPriority"),
    ("both", OLDEST, True, "octal", "UMask RuntimeDirectoryMode StateDirectoryMode CacheDirectoryMode"
     " LogsDirectoryMode ConfigurationDirectoryMode"),
    ("both", OLDEST, True, "environment", "Environment"),
    ("both", OLDEST, True, "files", "EnvironmentFile"),
    ("both", OLDEST, True, "capabilities", "CapabilityBoundingSet AmbientCapabilities"),
    ("both", OLDEST, True, "filter", "SystemCallFilter RestrictAddressFamilies"),
    ("both", OLDEST, True, "errno", "SystemCallErrorNumber"),
    ("both", OLDEST, True, "namespaces", "RestrictNamespaces"),
    ("both", OLDEST, True, "limit", "LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitCORE LimitRSS"
     " LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS LimitSIGPENDING LimitMSGQUEUE LimitNICE"
     " LimitRTPRIO LimitRTTIME"),
    ("both", OLDEST, True, "output", "StandardOutput StandardError"),
    ("both", OLDEST, True, "", "StandardInput StandardInputText StandardInputData IOSchedulingClass"
     " CPUSchedulingPolicy CPUAffinity SyslogFacility SyslogLevel LogLevelMax SecureBits TimerSlackNSec"
     " LogExtraFields BindPaths BindReadOnlyPaths TemporaryFileSystem MountFlags AppArmorProfile"
     " SmackProcessLabel ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories"),
    ("both", 240, True, "", "LogRateLimitIntervalSec LogRateLimitBurst"),
    ("both", 242, True, "b", "RestrictSUIDSGID ProtectHostname"),
    ("both", 242, True, "s", "NetworkNamespacePath"),
    ("both", 243, True, "", "NUMAPolicy NUMAMask"),
    ("both", 244, True, "b", "ProtectKernelLogs"),
    ("both", 244, False, "time", "TimeoutCleanSec"),
    ("both", 245, True, "b", "ProtectClock"),
    ("both", 245, True, "s", "LogNamespace"),
    ("both", 246, True, "", "CoredumpFilter RootHash RootHashSignature RootVerity"),
    ("both", 247, True, "s", "ProtectProc ProcSubset"),
    ("both", 247, True, "credential", "LoadCredential"),
    ("both", 247, True, "", "SetCredential MountImages RootImageOptions SystemCallLog"),
    ("both", 248, True, "b", "PrivateIPC"),
    ("both", 248, True, "as", "ExecPaths NoExecPaths"),
    ("both", 248, True, "s", "IPCNamespacePath"),
    ("both", 248, True, "", "ExtensionImages"),
    ("both", 250, True, "credential", "LoadCredentialEncrypted"),
    ("both", 250, True, "filter", "RestrictFileSystems"),
    ("both", 250, True, "as", "ExecSearchPath"),
    ("both", 250, True, "", "SetCredentialEncrypted TTYRows TTYColumns"),
    ("both", 251, True, "", "ExtensionDirectories"),
    ("both", 253, True, "", "LogFilterPatterns"),
    ("both", 254, True, "", "MemoryKSM ImportCredential RootEphemeral"),
    ("both", 255, True, "", "SetLoginEnvironment"),
    ("both", 257, True, "", "PrivatePIDs MountImagePolicy ExtensionImagePolicy RootImagePolicy"),
    ("both", 258, True, "", "PrivateBPF BPFDelegateCommands BPFDelegateMaps BPFDelegatePrograms"
     " BPFDelegateAttachments StateDirectoryQuota CacheDirectoryQuota LogsDirectoryQuota"
     " StateDirectoryAccounting CacheDirectoryAccounting LogsDirectoryAccounting UserNamespacePath"),
    # systemd.resource-control(5): written to the cgroup again after every daemon-reload.
    ("cgroup", OLDEST, True, "s", "Slice"),
    ("cgroup", OLDEST, True, "", "Delegate DisableControllers"),
    ("cgroup", OLDEST, False, "b", "CPUAccounting MemoryAccounting IOAccounting TasksAccounting"
     " IPAccounting BlockIOAccounting"),
    ("cgroup", OLDEST, False, "weight", "CPUWeight StartupCPUWeight IOWeight StartupIOWeight"),
    ("cgroup", OLDEST, False, "quota", "CPUQuota"),
    ("cgroup", OLDEST, False, "size", "MemoryLow MemoryHigh MemoryMax MemorySwapMax TasksMax"),
    ("cgroup", OLDEST, False, "s", "DevicePolicy"),
    ("cgroup", OLDEST, False, "", "CPUShares StartupCPUShares MemoryLimit DeviceAllow IODeviceWeight"
     " IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax BlockIOWeight"
     " StartupBlockIOWeight BlockIODeviceWeight BlockIOReadBandwidth BlockIOWriteBandwidth IPAddressAllow"
     " IPAddressDeny"),
    ("cgroup", 240, False, "size", "MemoryMin"),
    ("cgroup", 240, False, "", "IODeviceLatencyTargetSec DefaultMemoryLow"),
    ("cgroup", 242, False, "time", "CPUQuotaPeriodSec"),
    ("cgroup", 242, False, "", "DefaultMemoryMin"),
    ("cgroup", 243, True, "", "IPIngressFilterPath IPEgressFilterPath"),
    ("cgroup", 244, False, "", "AllowedCPUs AllowedMemoryNodes"),
    ("cgroup", 247, False, "s", "ManagedOOMSwap ManagedOOMMemoryPressure"),
    ("cgroup", 247, False, "", "ManagedOOMMemoryPressureLimit"),
    ("cgroup", 248, False, "s", "ManagedOOMPreference"),
    ("cgroup", 249, True, "", "BPFProgram SocketBindAllow SocketBindDeny"),
    ("cgroup", 250, True, "", "RestrictNetworkInterfaces"),
    ("cgroup", 252, False, "", "StartupAllowedCPUs StartupAllowedMemoryNodes"),
    ("cgroup", 253, False, "size", "MemoryZSwapMax"),
    ("cgroup", 254, True, "", "DelegateSubgroup MemoryPressureWatch MemoryPressureThresholdSec"
     " StartupMemoryLow StartupMemoryHigh StartupMemoryMax StartupMemorySwapMax StartupMemoryZSwapMax"
     " DefaultStartupMemoryLow"),
    ("cgroup", 255, True, "", "NFTSet CoredumpReceive"),
    ("unit", 255, False, "b", "SurviveFinalKillSignal"),
    ("cgroup", 256, False, "", "MemoryZSwapWriteback"),
    ("cgroup", 257, False, "", "ManagedOOMMemoryPressureDurationSec"),
    # [Socket]: the file descriptors were made when it was started.
    ("socket", OLDEST, True, "", "ListenStream ListenDatagram ListenSequentialPacket ListenFIFO"),
    ("socket", OLDEST, True, "", "ListenNetlink ListenSpecial ListenMessageQueue ListenUSBFunction"
     " SocketProtocol BindIPv6Only BindToDevice ExecStopPre Accept Writable MaxConnections"
     " MaxConnectionsPerSource KeepAlive KeepAliveTimeSec KeepAliveIntervalSec KeepAliveProbes"
     " DeferAcceptSec NoDelay Priority ReceiveBuffer SendBuffer IPTOS IPTTL Mark PipeSize FreeBind"
     " Transparent Broadcast PassCredentials PassSecurity TCPCongestion ReusePort MessageQueueMaxMessages"
     " MessageQueueMessageSize RemoveOnStop Symlinks FileDescriptorName SmackLabel SmackLabelIPIn"
     " SmackLabelIPOut SELinuxContextFromNet"),
    # ... but what they start is looked up when it is to be started; the plan sees to the time in between.
    ("socket", OLDEST, False, "", "Service"),
    ("socket", 246, True, "", "PassPacketInfo"),
    ("socket", 247, True, "", "FlushPending Timestamping"),
    ("socket", 256, True, "", "PassFileDescriptorsToExec"),
    ("socket", 255, True, "", "PollLimitIntervalSec PollLimitBurst"),
    ("socket", 258, True, "", "DeferTrigger DeferTriggerMaxSec PassPIDFD AcceptFileDescriptors"),
    ("socket", OLDEST, True, "", "Backlog"),
    ("socket", OLDEST, True, "", "SocketMode"),
    ("socket", OLDEST, True, "", "SocketUser SocketGroup"),
    ("limits", OLDEST, True, "", "DirectoryMode TriggerLimitIntervalSec TriggerLimitBurst"),
    # [Timer]: timer_coldplug in src/core/timer.c plans the next run anew after every daemon-reload.
    ("timer", OLDEST, False, "", "OnCalendar OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec"
     " OnUnitInactiveSec AccuracySec RandomizedDelaySec"),
    ("timer", OLDEST, True, "", "Persistent WakeSystem RemainAfterElapse"),
    ("timer", 242, True, "", "OnClockChange OnTimezoneChange"),
    ("timer", 247, True, "", "FixedRandomDelay"),
    ("timer", 257, True, "", "DeferReactivation"),
    ("timer", 258, True, "", "RandomizedOffsetSec"),
    ("triggers", OLDEST, True, "", "Unit"),
    # [Path]
    ("path", OLDEST, True, "", "PathExists PathExistsGlob PathChanged PathModified DirectoryNotEmpty"
     " MakeDirectory"),
)  # fmt: skip

_ALSO_IN = {
    **dict.fromkeys(
        ("StartLimitInterval", "StartLimitBurst", "StartLimitAction", "FailureAction"), "Service"
    ),
    **dict.fromkeys(("ExecStartPre", "ExecStartPost", "ExecStopPost"), "Socket"),
}
"""Directives with a second meaning, or an older place that systemd still reads."""

TABLE: dict[str, Directive] = {
    name: Directive(
        (*_KINDS[kind], _ALSO_IN[name]) if name in _ALSO_IN else _KINDS[kind], since, restart, encoding
    )
    for kind, since, restart, encoding, names in _ROWS
    for name in names.split()
}
"""Every directive, by name."""


def needs_restart(section: str, name: str) -> bool:
    """Say whether a running unit follows a change of this directive only when it is restarted."""
    if section == "Install" or section.startswith("X-"):
        return False
    row = TABLE.get(name)
    return row is None or row.restart
