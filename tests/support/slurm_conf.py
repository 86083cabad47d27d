"""The configuration of a private Slurm: everything on loopback and below one directory."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOGS = "log"
TMP = "tmp"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What of ours Slurm calls. `extra` are more lines of slurm.conf, which win."""

    prolog_slurmctld: Path | None = None
    epilog_slurmctld: Path | None = None
    prolog: Path | None = None
    epilog: Path | None = None
    plugstack: str = ""
    """Content of plugstack.conf."""
    burst_buffer_lua: Path | None = None
    burst_buffer_conf: str = ""
    extra: Sequence[str] = ()


def configuration(
    directory: Path,
    *,
    controller: int,
    nodes: Mapping[str, int],
    cores: int,
    munge_socket: Path,
    hooks: Hooks,
) -> str:
    """slurm.conf; `controller` and the values of `nodes` are ports."""
    host = socket.gethostname().partition(".")[0]
    settings = {
        "ClusterName": "tests",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(controller),
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={munge_socket}",
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
        "StateSaveLocation": f"{directory}/state",
        "SlurmdSpoolDir": f"{directory}/spool/%n",
        # Each node has one of its own, as if it were a machine.
        "TmpFS": f"{directory}/{TMP}/%n",
        "SlurmctldPidFile": f"{directory}/run/slurmctld.pid",
        "SlurmdPidFile": f"{directory}/run/%n.pid",
        "SlurmctldLogFile": f"{directory}/{LOGS}/slurmctld.log",
        "SlurmdLogFile": f"{directory}/{LOGS}/%n.log",
        "SlurmctldDebug": "info",
        "SlurmdDebug": "verbose",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "MailProg": "/bin/true",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "bf_interval=1,sched_interval=2,batch_sched_delay=0",
        "ReturnToService": "2",
        "SlurmctldTimeout": "30",
        "SlurmdTimeout": "30",
        "InactiveLimit": "0",
        "KillWait": "2",
        "MinJobAge": "300",
        "LaunchParameters": "use_interactive_step",
        "PrologFlags": "Alloc",
        "SlurmdParameters": "config_overrides",
        "PlugStackConfig": f"{directory}/plugstack.conf",
    }
    scripts = {
        "PrologSlurmctld": hooks.prolog_slurmctld,
        "EpilogSlurmctld": hooks.epilog_slurmctld,
        "Prolog": hooks.prolog,
        "Epilog": hooks.epilog,
    }
    settings |= {name: str(path) for name, path in scripts.items() if path is not None}
    if hooks.burst_buffer_lua is not None:
        settings["BurstBufferType"] = "burst_buffer/lua"
    given = {line.partition("=")[0].strip() for line in hooks.extra}
    lines = [f"{name}={value}" for name, value in settings.items() if name not in given]
    lines += hooks.extra
    lines += [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} "
        f"Sockets=1 CoresPerSocket={cores} ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN"
        for node, port in nodes.items()
    ]
    lines.append("PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"
