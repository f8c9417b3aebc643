"""Snowflake's session and query protocol over HTTP, as far as reading a share needs it.

Requests and responses have the shape that the unmodified Snowflake connector uses. Every failure
is answered with a code in the body: the connector repeats an HTTP 500 without end.
"""

import gzip
import json
import logging
import secrets
import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from fakesnow.converter import from_binding
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vibes_pipelines.sandbox.share_database import QueryError, ShareDatabase, ShareSession
from vibes_pipelines.sandbox.share_login import LoginRefusedError, ShareUser
from vibes_pipelines.sandbox.share_results import ChunkStore, encode, rowtype

logger = logging.getLogger(__name__)

SESSION_S = 3600
MASTER_S = 4 * SESSION_S
LOGIN_AGAIN = ("390104", "User must login again to access the service.")
INTERNAL_ERROR = "000603"
SERVER_VERSION = "9.0.0"


@dataclass
class ShareProtocol:
    """The endpoints over one `ShareDatabase`, with the sessions that are logged in."""

    database: ShareDatabase
    user: ShareUser
    chunks: ChunkStore
    chunk_rows: int
    sessions: dict[str, ShareSession] = field(default_factory=dict)
    faults: dict[str, QueryError] = field(default_factory=dict)
    """Scripted refusals: of statements that begin with a text, each as often as it comes."""

    def app(self) -> Starlette:
        """Build the HTTP application."""
        return Starlette(
            routes=[
                Route("/session/v1/login-request", self.login, methods=["POST"]),
                Route("/session", self.close_session, methods=["POST"]),
                Route("/session/heartbeat", self.heartbeat, methods=["POST"]),
                Route("/queries/v1/query-request", self.query, methods=["POST"]),
                Route("/queries/v1/abort-request", self.heartbeat, methods=["POST"]),
                Route("/chunks/{name}", self.chunk, methods=["GET"]),
            ]
        )

    async def login(self, request: Request) -> Response:
        """Check the credentials and open a session."""
        login = (await _body(request))["data"]
        try:
            self.user.check(login)
        except LoginRefusedError as refused:
            return _failure(refused.code, refused.message)
        wanted = request.query_params
        session = await run_in_threadpool(
            self.database.connect,
            wanted.get("databaseName"),
            wanted.get("schemaName"),
            wanted.get("warehouse"),
        )
        token = secrets.token_urlsafe(32)
        self.sessions[token] = session
        return _success(
            {
                "token": token,
                "masterToken": secrets.token_urlsafe(32),
                "validityInSeconds": SESSION_S,
                "masterValidityInSeconds": MASTER_S,
                "sessionId": uuid.uuid4().int >> 80,
                "serverVersion": SERVER_VERSION,
                "parameters": [
                    {"name": "AUTOCOMMIT", "value": True},
                    {"name": "TIMEZONE", "value": "Etc/UTC"},
                    {"name": "CLIENT_TELEMETRY_ENABLED", "value": False},
                    {"name": "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY", "value": 3600},
                    # An array of bound values is sent inline: a share has no stage to put it on.
                    {"name": "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD", "value": 0},
                ],
                "sessionInfo": {
                    "databaseName": session.database,
                    "schemaName": session.schema,
                    "warehouseName": wanted.get("warehouse"),
                    "roleName": wanted.get("roleName"),
                },
            }
        )

    async def close_session(self, request: Request) -> Response:
        """Close the session when asked to, with everything kept for it."""
        if "delete" not in request.query_params:
            return await self.heartbeat(request)
        token = _token(request)
        session = self.sessions.pop(token, None)
        if session is None:
            return _failure(*LOGIN_AGAIN)
        self.chunks.drop_session(token)
        await run_in_threadpool(session.close)
        return _success(None)

    async def heartbeat(self, request: Request) -> Response:
        """Say whether the session is alive."""
        return _success(None) if _token(request) in self.sessions else _failure(*LOGIN_AGAIN)

    async def query(self, request: Request) -> Response:
        """Run one statement and answer its first rows and the names of the chunks to fetch."""
        token = _token(request)
        session = self.sessions.get(token)
        if session is None:
            return _failure(*LOGIN_AGAIN)
        statement = await _body(request)
        base_url = str(request.base_url).rstrip("/")
        try:
            data = await run_in_threadpool(self._run, token, session, statement, base_url)
        except QueryError as failed:
            return _failure(failed.code, failed.message, failed.sql_state)
        except Exception as error:  # the process boundary: the client must get an answer
            logger.exception("a statement of the share failed in the server")
            return _failure(INTERNAL_ERROR, f"SQL execution internal error: {error}", "XX000")
        return _success(data)

    async def chunk(self, request: Request) -> Response:
        """Serve a part of a result; its name is the permission, as with a presigned address."""
        chunk = self.chunks.find(request.path_params["name"])
        if chunk is None:
            return Response(status_code=404)
        return Response(
            await run_in_threadpool(encode, chunk.rows), media_type="application/octet-stream"
        )

    def close(self) -> None:
        """Close every session that its client left open."""
        while self.sessions:
            _, session = self.sessions.popitem()
            session.close()

    def _run(
        self, token: str, session: ShareSession, statement: dict[str, Any], base_url: str
    ) -> dict[str, Any]:
        sql = statement["sqlText"]
        for beginning, refusal in self.faults.items():
            if sql.startswith(beginning):
                raise refusal
        if upload := session.upload(sql):
            return upload
        if statement.get("describeOnly"):
            schema, type_id = session.describe(sql)
            rows = schema.empty_table()
        else:
            rows, type_id = session.query(sql, _bindings(statement.get("bindings")))
        first, rest = rows.slice(0, self.chunk_rows), rows.slice(self.chunk_rows)
        chunks = self.chunks.keep(token, rest, self.chunk_rows)
        data: dict[str, Any] = {
            "parameters": [{"name": "TIMEZONE", "value": "Etc/UTC"}],
            "rowtype": rowtype(rows.schema),
            "total": rows.num_rows,
            "returned": rows.num_rows,
            "queryId": str(uuid.uuid4()),
            "statementTypeId": type_id,
            "finalDatabaseName": session.database,
            "finalSchemaName": session.schema,
            "queryResultFormat": "arrow",
            "rowsetBase64": _inline(first),
        }
        if chunks:
            data["chunks"] = [chunk.reference(base_url) for chunk in chunks]
            data["chunkHeaders"] = {}
        return data


def _inline(rows: pa.Table) -> str:
    return b64encode(encode(rows)).decode() if rows.num_rows else ""


def _bindings(bindings: dict[str, Any] | None) -> list[Any]:
    """Read the values of `?` placeholders, which travel by position: "1", "2", ..."""
    if not bindings:
        return []
    ordered = [bindings[str(position)] for position in range(1, len(bindings) + 1)]
    return [None if one["value"] is None else from_binding(one) for one in ordered]


async def _body(request: Request) -> dict[str, Any]:
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    content: dict[str, Any] = json.loads(body)
    return content


def _token(request: Request) -> str:
    """Read the token of the header `Authorization: Snowflake Token="..."`."""
    return request.headers.get("Authorization", "").partition('Token="')[2].rstrip('"')


def _success(data: dict[str, Any] | None) -> Response:
    return JSONResponse({"data": data, "code": None, "message": None, "success": True})


def _failure(code: str, message: str, sql_state: str | None = None) -> Response:
    return JSONResponse(
        {
            "data": {"errorCode": code, "sqlState": sql_state},
            "code": code,
            "message": message,
            "success": False,
        }
    )
