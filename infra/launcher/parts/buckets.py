"""What both object stores share: an S3 client that gives up fast, the probe, and the bucket."""

from typing import Final

from msgspec import Struct

from infra.launcher.errors import NotReadyError

REGION: Final = "us-east-1"  # neither store has regions, but every request signature names one
CONNECT_TIMEOUT_S: Final = 2
REQUEST_TIMEOUT_S: Final = 5


class Bucket(Struct, frozen=True):
    """A bucket and how to reach it."""

    endpoint_url: str
    name: str
    key_id: str
    secret: str


def ensure_bucket(part: str, bucket: Bucket) -> None:
    """Write and read in the bucket, making it if missing; raises NotReadyError when the store does not do it."""
    from pyarrow import fs

    store = fs.S3FileSystem(
        access_key=bucket.key_id,
        secret_key=bucket.secret,
        endpoint_override=bucket.endpoint_url,
        region=REGION,
        allow_bucket_creation=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    try:
        if store.get_file_info(bucket.name).type == fs.FileType.NotFound:
            store.create_dir(bucket.name)
        with store.open_output_stream(f"{bucket.name}/launcher/probe") as stream:
            stream.write(b"ready")
    except OSError as error:
        raise NotReadyError(f"{part}: {error}") from None
