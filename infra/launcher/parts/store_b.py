"""Store B, for behaviour data: S3Proxy over a folder, bucket `lake-b`."""

from typing import Final

from infra.launcher.model import ConfigFile, Context, Part
from infra.launcher.parts.buckets import Bucket, ensure_bucket
from infra.launcher.settings import HOST
from infra.setup.paths import java_25_home, s3proxy_jar

NAME: Final = "store-b"
BUCKET: Final = "lake-b"


def part(context: Context) -> Part:
    """Return the part."""
    properties = context.conf(NAME) / "s3proxy.conf"
    return Part(
        name=NAME,
        title="S3Proxy (store B)",
        command=(
            str(java_25_home() / "bin" / "java"),
            f"-Xmx{context.settings.memory.store_b_heap_mib}m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-jar",
            str(s3proxy_jar()),
            "--properties",
            str(properties),
        ),
        address=bucket(context).endpoint_url,
        probe=probe,
        files=(ConfigFile(properties, server_settings(context)),),
        directory=context.data(NAME),
        ports=("store_b",),
        owned=(context.data(NAME) / "objects",),
    )


def bucket(context: Context) -> Bucket:
    """Return how clients reach the bucket."""
    return Bucket(
        endpoint_url=f"http://{HOST}:{context.settings.port('store_b')}",
        name=BUCKET,
        key_id=context.secrets.store_b_key_id,
        secret=context.secrets.store_b_secret,
    )


def server_settings(context: Context) -> str:
    """Render the properties file."""
    lines = {
        "s3proxy.endpoint": bucket(context).endpoint_url,
        "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": context.secrets.store_b_key_id,
        "s3proxy.credential": context.secrets.store_b_secret,
        "jclouds.provider": "filesystem-nio2",
        "jclouds.identity": "local",
        "jclouds.credential": "local",
        "jclouds.filesystem.basedir": str(context.data(NAME) / "objects"),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def probe(context: Context) -> None:
    """Write an object into the bucket."""
    ensure_bucket(NAME, bucket(context))
