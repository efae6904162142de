"""A program of tokio's, whose event loop polls sockets by their device, asks a server of ours."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.guest_runs import need, virtus
from tests.win32.programs import PROGRAMS, fetched


class Answers(BaseHTTPRequestHandler):
    """One page is there, no other."""

    def do_GET(self) -> None:
        body = b"hello"
        self.send_response(200 if self.path == "/there" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_links_are_checked_over_the_network(port: int, tmp_path: Path) -> None:
    need("api-wrapper")
    program = next(found for found in PROGRAMS if found.name == "lychee")
    exe = fetched(program.windows, program.exe, windows=True)
    page = tmp_path / "t.md"
    page.write_text(f"[a](http://127.0.0.1:{port}/there) [b](http://127.0.0.1:{port}/nowhere)\n")
    words = ["--no-progress", "--max-retries", "0", "--format", "json", str(page)]
    ran = virtus("run", "--with", "api-wrapper", "--net", "host", "--", str(exe), *words)
    assert ran.returncode == 2, ran.stderr[-1000:]
    assert b'"total": 2' in ran.stdout and b'"successful": 1' in ran.stdout and b'"code": 404' in ran.stdout
