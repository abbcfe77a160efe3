"""Store A, for field data: SeaweedFS, all its servers in one process, bucket `lake-a`."""

from pathlib import Path
from typing import Final

import msgspec

from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.parts.buckets import Bucket, ensure_bucket
from infra.launcher.settings import HOST
from infra.setup.paths import lake_env

NAME: Final = "store-a"
BUCKET: Final = "lake-a"
# A bucket takes up to seven volumes at once; small ones let a small disk hold all of them.
VOLUME_MIB_MAX: Final = 512
VOLUMES_MAX: Final = 64


def part(context: Context) -> Part:
    """Return the part."""
    data = context.data(NAME)
    return Part(
        name=NAME,
        title="SeaweedFS (store A)",
        command=(str(lake_env() / "bin" / "weed"), *_arguments(context)),
        address=bucket(context).endpoint_url,
        probe=probe,
        files=(ConfigFile(context.conf(NAME) / "s3.json", identities(context)),),
        # The Go collector keeps twice the live heap by default; this trades a little CPU for about 100 MB.
        environment={"GOGC": "50", "GOMEMLIMIT": "400MiB"},
        directory=data,
        ports=tuple(
            f"store_a{suffix}"
            for suffix in ("", "_grpc", "_master", "_master_grpc", "_volume", "_volume_grpc", "_filer", "_filer_grpc")
        ),
        owned=(data,),
        sockets=sockets(context),
        # It answers SIGTERM by waiting 15 s for its own streams; what it acknowledged is with the kernel long before.
        stop_wait_s=3,
    )


def sockets(context: Context) -> tuple[Path, ...]:
    """Return the sockets it makes; those in the temporary folder have names that no setting changes."""
    settings = context.settings
    fixed = tuple(
        Path(f"/tmp/seaweedfs-{server}-grpc-{settings.port(f'store_a_{port}grpc')}.sock")
        for server, port in (("master", "master_"), ("volume", "volume_"), ("filer", "filer_"), ("s3", ""))
    )
    return (settings.socket_path("weed-filer"), settings.socket_path("weed-s3"), *fixed)


def bucket(context: Context) -> Bucket:
    """Return how clients reach the bucket."""
    return Bucket(
        endpoint_url=f"http://{HOST}:{context.settings.port('store_a')}",
        name=BUCKET,
        key_id=context.secrets.store_a_key_id,
        secret=context.secrets.store_a_secret,
    )


def identities(context: Context) -> str:
    """Render the only identity; without one, SeaweedFS is open to all."""
    key = {"accessKey": context.secrets.store_a_key_id, "secretKey": context.secrets.store_a_secret}
    identity = {"name": "lakehouse", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    return msgspec.json.format(msgspec.json.encode({"identities": [identity]})).decode()


def probe(context: Context) -> None:
    """Write an object into the bucket."""
    ensure_bucket(NAME, bucket(context))


def _arguments(context: Context) -> tuple[str, ...]:
    settings = context.settings
    flags: dict[str, object] = {
        "dir": context.data(NAME),
        "ip": HOST,
        "ip.bind": HOST,
        "master.port": settings.port("store_a_master"),
        "master.port.grpc": settings.port("store_a_master_grpc"),
        "master.telemetry": "false",
        # A master without peers elects itself only after this time, at every start but the first.
        "master.electionTimeout": "1s",
        "master.volumeSizeLimitMB": VOLUME_MIB_MAX,
        "volume.port": settings.port("store_a_volume"),
        "volume.port.grpc": settings.port("store_a_volume_grpc"),
        "volume.max": VOLUMES_MAX,
        "volume.preStopSeconds": 0,  # by default it waits 10 s for clients of other machines to look elsewhere
        "filer": "true",
        "filer.port": settings.port("store_a_filer"),
        "filer.port.grpc": settings.port("store_a_filer_grpc"),
        "filer.localSocket": settings.socket_path("weed-filer"),
        "s3": "true",
        "s3.config": context.conf(NAME) / "s3.json",
        "s3.port": settings.port("store_a"),
        "s3.port.grpc": settings.port("store_a_grpc"),
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": settings.socket_path("weed-s3"),
        "s3.iam": "false",
    }
    # `-logtostderr` belongs to the program, the others to its command `server`.
    return ("-logtostderr=true", "server", *(f"-{name}={value}" for name, value in flags.items()))
