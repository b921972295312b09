"""Parquet files as this package keeps them: whole or absent, with the versions they depend on inside.

pyarrow comes with the extra `corpus` and is imported when a file is.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from secondpass.errors import CorpusError

_VERSIONS = b"secondpass"


def arrow() -> Any:
    """The pyarrow module.

    Raises:
        CorpusError: it is not installed.
    """
    try:
        for part in ("compute", "parquet"):
            import_module(f"pyarrow.{part}")
        return import_module("pyarrow")
    except ImportError as error:
        raise CorpusError("corpora and labels need pyarrow: pip install 'secondpass[corpus]'") from error


def write(
    path: Path,
    columns: Mapping[str, tuple[Any, Sequence[Any]]],
    versions: Mapping[str, Any],
    row_group: int | None = None,
) -> None:
    """Write a table; the file appears complete or not at all, and is on disk when this returns.

    Args:
        path: the file.
        columns: by name, the pyarrow type and the values.
        versions: what the contents depend on.
        row_group: rows that are read together; all when None.
    """
    pa = arrow()
    schema = pa.schema(
        [(name, kind) for name, (kind, _) in columns.items()], metadata={_VERSIONS: json.dumps(dict(versions)).encode()}
    )
    table = pa.table([pa.array(values, kind) for kind, values in columns.values()], schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")  # two processes may write the same file
    settings = {"compression": "zstd", "compression_level": 9, "write_page_checksum": True}
    try:
        pa.parquet.write_table(table, temporary, row_group_size=row_group, **settings)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # Arrow's do not say which file
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def open_file(path: Path, mend: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        CorpusError: it cannot be read; `mend` says what to do about it.
    """
    pa = arrow()
    try:
        return pa.parquet.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise corrupt(path, error, mend) from error


def corrupt(path: Path, error: Exception, mend: str) -> CorpusError:
    """What to raise where reading fails."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EACCES):
        mend = "nothing is wrong with what is in it"
    return CorpusError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); {mend}")


def read(path: Path, mend: str, columns: Sequence[str] | None = None) -> Any:
    """A whole table, or some of its columns.

    Raises:
        CorpusError: as `open_file`.
    """
    file = open_file(path, mend)
    try:
        return file.read(columns)
    except (OSError, arrow().ArrowException) as error:
        raise corrupt(path, error, mend) from error


def versions(file_or_table: Any) -> dict[str, Any]:
    """What `write` was told the contents depend on; empty for foreign files."""
    schema = getattr(file_or_table, "schema_arrow", None) or file_or_table.schema
    metadata: dict[bytes, bytes] = schema.metadata or {}
    try:
        return json.loads(metadata.get(_VERSIONS, b"{}"))
    except ValueError:
        return {}


def require(path: Path, file_or_table: Any, expected: Mapping[str, Any], mend: str) -> dict[str, Any]:
    """Refuse a file whose contents depend on other versions than the ones in force; what `versions` says of it.

    Raises:
        CorpusError: with the first that differs; `mend` says what to do about it.
    """
    made = versions(file_or_table)
    for name, wanted in expected.items():
        if made.get(name) != wanted:
            what = "LLVM" if name == "llvm" else name.replace("_", " ")
            raise CorpusError(f"{path}: made with {what} {made.get(name, 'unknown')}, not {wanted}; {mend}")
    return made
