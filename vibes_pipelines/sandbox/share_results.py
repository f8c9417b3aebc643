"""Query results as Snowflake's connector reads them: Arrow streams in chunks.

Values are encoded here as Snowflake encodes them, and large results are cut into chunks that the
client downloads one by one. The stand-in's own encoder is not used because it loses the NULLs of
timestamps and sends every result as one piece.
"""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

MICROSECONDS_PER_S = 1_000_000

# Snowflake sends a NUMBER that fits 64 bits as a scaled integer, not as an Arrow decimal. Clients
# that do not ask the connector for decimals get floating point numbers, as in production.
MAX_INT64_PRECISION = 18

# Time zones travel as minutes + 1440, so this is UTC.
UTC_OFFSET_CODE = 1440

MAX_TEXT = 16_777_216
MAX_BINARY = 8_388_608


class UnsupportedTypeError(Exception):
    """A result column has a type that the share does not offer."""


@dataclass(frozen=True)
class _WireType:
    """A Snowflake type name with its precision and scale, as `rowtype` states them."""

    name: str
    precision: int | None = None
    scale: int | None = None
    length: int | None = None


def _wire_type(arrow_type: pa.DataType) -> _WireType:  # noqa: PLR0911 - one line a type
    if pa.types.is_decimal(arrow_type):
        return _WireType("fixed", arrow_type.precision, arrow_type.scale)
    if pa.types.is_integer(arrow_type):
        return _WireType("fixed", 38, 0)
    if pa.types.is_floating(arrow_type):
        return _WireType("real")
    if pa.types.is_boolean(arrow_type):
        return _WireType("boolean")
    if pa.types.is_date(arrow_type):
        return _WireType("date")
    if pa.types.is_time(arrow_type):
        return _WireType("time", 0, 9)
    if pa.types.is_timestamp(arrow_type):
        return _WireType("timestamp_tz" if arrow_type.tz else "timestamp_ntz", 0, 9)
    if pa.types.is_binary(arrow_type) or pa.types.is_large_binary(arrow_type):
        return _WireType("binary", length=MAX_BINARY)
    if pa.types.is_null(arrow_type) or pa.types.is_string(arrow_type):
        return _WireType("text", length=MAX_TEXT)
    raise UnsupportedTypeError(f"a column of type {arrow_type} cannot be sent to the client")


def rowtype(schema: pa.Schema) -> list[dict[str, Any]]:
    """Describe the columns of a result as the query response does."""
    columns = []
    for field in schema:
        wire = _wire_type(field.type)
        columns.append(
            {
                "name": field.name,
                "database": "",
                "schema": "",
                "table": "",
                "nullable": True,
                "type": wire.name,
                "byteLength": wire.length,
                "length": wire.length,
                "scale": wire.scale,
                "precision": wire.precision,
                "collation": None,
            }
        )
    return columns


def encode(table: pa.Table) -> bytes:
    """Encode rows as the Arrow stream that the connector decodes."""
    arrays, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        wire = _wire_type(field.type)
        array = _encode_column(column)
        metadata = {
            "logicalType": wire.name.upper(),
            "precision": str(wire.precision or 38),
            "scale": str(wire.scale or 0),
            "charLength": str(wire.length or 0),
        }
        arrays.append(array)
        fields.append(pa.field(field.name, array.type, nullable=True, metadata=metadata))
    encoded = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, encoded.schema) as writer:
        writer.write_table(encoded)
    return cast("bytes", sink.getvalue().to_pybytes())


def _encode_column(column: pa.ChunkedArray) -> pa.Array:
    array = _one_array(column)
    if pa.types.is_timestamp(array.type):
        return _encode_timestamp(array)
    if pa.types.is_decimal(array.type) and array.type.precision <= MAX_INT64_PRECISION:
        return _encode_scaled_integer(array)
    if pa.types.is_time(array.type):
        return pc.multiply(array.cast(pa.int64()), 1000)  # nanoseconds
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    if pa.types.is_unsigned_integer(array.type):
        return array.cast(pa.int64())
    return array


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _encode_scaled_integer(array: pa.Array) -> pa.Array:
    factor = pa.scalar(10**array.type.scale, pa.decimal128(MAX_INT64_PRECISION + 1, 0))
    return pc.multiply(array, factor).cast(pa.int64())


def _encode_timestamp(array: pa.Array) -> pa.Array:
    """Split into whole seconds and nanoseconds; a NULL stays NULL, before 1970 stays before."""
    instants = array.cast(pa.timestamp("us", tz=array.type.tz))
    micros = instants.cast(pa.int64()).fill_null(0)
    seconds = pc.floor_temporal(instants, unit="second").cast(pa.int64()).fill_null(0)
    epoch = pc.divide(seconds, MICROSECONDS_PER_S)
    nanos = pc.multiply(pc.subtract(micros, seconds), 1000).cast(pa.int32())
    children = [epoch, nanos]
    fields = [
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("fraction", pa.int32(), nullable=False),
    ]
    if array.type.tz:
        children.append(pa.array([UTC_OFFSET_CODE] * len(array), pa.int32()))
        fields.append(pa.field("timezone", pa.int32(), nullable=False))
    return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())


@dataclass(frozen=True)
class Chunk:
    """A part of a result waiting for its download under an unguessable name."""

    name: str
    rows: pa.Table

    def reference(self, base_url: str) -> dict[str, Any]:
        """Name the chunk in a query response."""
        size = self.rows.nbytes
        return {
            "url": f"{base_url}/chunks/{self.name}",
            "rowCount": self.rows.num_rows,
            "uncompressedSize": size,
            "compressedSize": size,
        }


class ChunkStore:
    """The chunks of the newest results; older ones and those of closed sessions are dropped."""

    def __init__(self, max_results: int) -> None:
        self._max_results = max_results
        self._results: OrderedDict[str, tuple[str, tuple[Chunk, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._results)

    def keep(self, session: str, rows: pa.Table, chunk_rows: int) -> tuple[Chunk, ...]:
        """Cut `rows` into chunks that can be downloaded until newer results push them out."""
        chunks = tuple(
            Chunk(secrets.token_urlsafe(16), rows.slice(start, chunk_rows))
            for start in range(0, rows.num_rows, chunk_rows)
        )
        if chunks:
            with self._lock:
                self._results[secrets.token_hex(8)] = (session, chunks)
                while len(self._results) > self._max_results:
                    self._results.popitem(last=False)
        return chunks

    def find(self, name: str) -> Chunk | None:
        """Return a chunk; it stays readable, as a download may be repeated."""
        with self._lock:
            for _, chunks in self._results.values():
                for chunk in chunks:
                    if chunk.name == name:
                        return chunk
        return None

    def drop_session(self, session: str) -> None:
        """Forget the results of a closed session."""
        with self._lock:
            closed = [key for key, (owner, _) in self._results.items() if owner == session]
            for key in closed:
                del self._results[key]
