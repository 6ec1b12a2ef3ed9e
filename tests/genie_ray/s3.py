"""An object store for tests: moto's S3 server on this machine, which other processes reach like Amazon's."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_bucket(name: str) -> Iterator[str]:
    """The URI of a bucket, to be filled with a path; its query says where the server is."""
    boto3, server = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    s3 = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket=name)
    yield f"s3://testing:testing@{name}/{{}}?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    s3.stop()
