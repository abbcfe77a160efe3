"""Flink: a session cluster of one job manager and one task manager, from the wheel's distribution."""

from pathlib import Path
from typing import Any, Final

import requests
import yaml

from infra.launcher.errors import NotReadyError, PartFailedError
from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.settings import HOST
from infra.setup.paths import flink_env, flink_home, flink_python, java_17_home, repo_root, site_packages

CONF: Final = "flink"
JOB_MANAGER: Final = "flink-jobs"
TASK_MANAGER: Final = "flink-tasks"
SLOTS: Final = 2
REST_TIMEOUT_S: Final = 2.0
RESTARTS_MAX: Final = 2_147_483_647  # a job without a broker waits for it, however long

LOGGING: Final = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = Console
appender.console.target = SYSTEM_OUT
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
logger.jobs.name = org.apache.flink.runtime.executiongraph
logger.jobs.level = INFO
logger.tasks.name = org.apache.flink.runtime.taskmanager
logger.tasks.level = INFO
"""


def parts(context: Context) -> tuple[Part, Part]:
    """Return job manager and task manager; side by side, since the task manager waits for its job manager itself."""
    rest, rpc = context.settings.port("flink_rest"), context.settings.port("flink_rpc")
    return (
        _part(context, JOB_MANAGER, "Flink job manager", "jobmanager.sh", f"http://{HOST}:{rest}"),
        _part(context, TASK_MANAGER, "Flink task manager", "taskmanager.sh", f"{HOST}:{rpc} (its job manager)"),
    )


def rest_url(context: Context) -> str:
    """Return the job manager's REST interface."""
    return f"http://{HOST}:{context.settings.port('flink_rest')}"


def environment(context: Context) -> dict[str, str]:
    """Return what job manager, task manager and client need to find the distribution, its Java and our code."""
    path = f"{flink_env() / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "FLINK_HOME": str(flink_home()),
        "FLINK_CONF_DIR": str(context.conf(CONF)),
        "FLINK_LOG_DIR": str(context.settings.logs_dir),
        "FLINK_PID_DIR": str(context.data(CONF)),
        "FLINK_IDENT_STRING": context.settings.instance,
        "PYTHONPATH": f"{site_packages(flink_env())}:{repo_root()}",
        "PATH": path,
        "JAVA_HOME": str(java_17_home()),
    }


def cluster_settings(context: Context, shipped: str) -> str:
    """Render `config.yaml`; `shipped` is the wheel's own file, whose Java options are kept."""
    settings, memory = context.settings, context.settings.memory
    tree: dict[str, Any] = {
        "env": {
            "java": {
                "opts": {
                    "all": yaml.safe_load(shipped)["env"]["java"]["opts"]["all"],
                    # It only coordinates: the second compiler would cost more, while everything starts, than it gains.
                    "jobmanager": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
                }
            }
        },
        "jobmanager": {
            "bind-host": HOST,
            "rpc": {"address": HOST, "port": settings.port("flink_rpc")},
            "memory": {"process": {"size": f"{memory.job_manager_mib}m"}},
            "execution": {"failover-strategy": "region"},
        },
        "taskmanager": {
            "bind-host": HOST,
            "host": HOST,
            "rpc": {"port": settings.port("flink_task_rpc")},
            "data": {"port": settings.port("flink_task_data")},
            "numberOfTaskSlots": SLOTS,
            "memory": _task_memory(memory.task_manager_mib),
        },
        "rest": {
            "address": HOST,
            "bind-address": HOST,
            "port": settings.port("flink_rest"),
            "bind-port": settings.port("flink_rest"),
        },
        "blob": {"server": {"port": settings.port("flink_blob")}},
        "io": {"tmp": {"dirs": str(temporary(context))}},
        "parallelism": {"default": 1},
        "heartbeat": {"interval": 1_000, "timeout": 5_000},
        "restart-strategy": {"type": "fixed-delay", "fixed-delay": {"attempts": RESTARTS_MAX, "delay": "100 ms"}},
        "execution": {
            "buffer-timeout": {"interval": "10 ms"},
            "checkpointing": {
                "interval": "1 s",
                "mode": "AT_LEAST_ONCE",
                "storage": "filesystem",
                "dir": f"file://{context.data(CONF) / 'checkpoints'}",
            },
        },
        "state": {"backend": {"type": "hashmap"}},
        "pipeline": {"object-reuse": True},
        "python": {
            "execution-mode": "thread",
            "executable": str(flink_python()),
            "client": {"executable": str(flink_python())},
        },
    }
    return yaml.safe_dump(tree, sort_keys=False, width=10_000)


def prepare(context: Context) -> None:
    """Check the two jars that set-up adds to the wheel: without the second, the second job in a process fails."""
    jars = flink_home() / "lib"
    for pattern in ("flink-sql-connector-kafka-*.jar", "flink-python-*.jar"):
        if not any(jars.glob(pattern)):
            raise PartFailedError(f"flink: no {pattern} in {jars}; run `make setup`")
    temporary(context).mkdir(parents=True, exist_ok=True)


def temporary(context: Context) -> Path:
    """Return the folder for files that nobody needs after the process that made them."""
    return context.data(CONF) / "tmp"


def cluster_overview(context: Context) -> dict[str, Any]:
    """Return the job manager's counts of task managers, slots and jobs; raises NotReadyError."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(f"{rest_url(context)}/overview", timeout=REST_TIMEOUT_S)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise NotReadyError(f"flink: {error}") from None
    return found


def _part(context: Context, name: str, title: str, script: str, address: str) -> Part:
    conf, data = context.conf(CONF), context.data(CONF)
    is_master = name == JOB_MANAGER
    return Part(
        name=name,
        title=title,
        command=(str(flink_home() / "bin" / script), "start-foreground"),
        address=address,
        probe=_probe_jobs if is_master else _probe_tasks,
        files=_files(context),
        environment=environment(context),
        beside=() if is_master else (JOB_MANAGER,),
        ports=(("flink_rest", "flink_rpc", "flink_blob") if is_master else ("flink_task_rpc", "flink_task_data")),
        owned=(conf, data, data / "tmp", data / "checkpoints"),
        prepare=prepare,
        stop_wait_s=20,
        ready_within_s=240,
    )


def _files(context: Context) -> tuple[ConfigFile, ...]:
    conf = context.conf(CONF)
    shipped = flink_home() / "conf" / "config.yaml"
    return (
        ConfigFile(conf / "config.yaml", cluster_settings(context, _text(shipped))),
        *(ConfigFile(conf / name, LOGGING) for name in ("log4j-console.properties", "log4j-cli.properties")),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise PartFailedError(f"flink: {path} does not exist; run `make setup`") from None


def _probe_jobs(context: Context) -> None:
    cluster_overview(context)


def _probe_tasks(context: Context) -> None:
    if cluster_overview(context)["slots-total"] < SLOTS:
        raise NotReadyError("flink: no task manager has registered")


def _task_memory(process_mib: int) -> dict[str, Any]:
    return {
        "process": {"size": f"{process_mib}m"},
        "managed": {"size": "32m"},
        "network": {"min": "32m", "max": "32m"},
        "jvm-metaspace": {"size": "192m"},
        "jvm-overhead": {"min": "96m", "max": "96m"},
        "framework": {"heap": {"size": "64m"}, "off-heap": {"size": "64m"}},
        "task": {"off-heap": {"size": "64m"}},
    }
