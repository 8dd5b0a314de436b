"""Where the report leads to: MLflow's page of a run, where a server knows it."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.runs_folder import Json

from analysis.read import links


class Mlflow(http.server.BaseHTTPRequestHandler):
    """The two answers of MLflow that are asked for, the runs in two pages."""

    wanted: str | None = None

    def answer(self, content: Json) -> None:
        if self.headers["Authorization"] != self.wanted:
            self.send_error(401)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def do_GET(self) -> None:
        assert self.path == "/api/2.0/mlflow/experiments/get-by-name?experiment_name=small"
        self.answer({"experiment": {"experiment_id": "7"}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = 2 if asked.get("page_token") else 1
        run = {
            "info": {"run_id": f"r{number}"},
            "data": {"tags": [{"key": "stage_key", "value": f"k{number}"}]},
        }
        self.answer({"runs": [run]} | ({"next_page_token": "more"} if number == 1 else {}))

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mlflow) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_the_pages_of_mlflow_are_asked_of_its_server_where_the_sweep_was_synced(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert links.pages(tmp_path, "small") == {}
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "small.mlflow").write_text("{}")
    expected = {f"k{number}": f"{server}/#/experiments/7/runs/r{number}" for number in (1, 2)}
    assert links.pages(tmp_path, "small") == expected
    for other in ("", "sqlite:///x.db", "http://127.0.0.1:9"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
        assert links.pages(tmp_path, "small") == {}


@pytest.mark.parametrize("given_by", ["the variables", "the address"])
def test_a_server_with_a_login_is_asked_with_it_and_no_link_shows_it(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, given_by: str
) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "small.mlflow").write_text("{}")
    monkeypatch.setattr(Mlflow, "wanted", f"Basic {base64.b64encode(b'me:s@cret').decode()}")
    account = "me:s%40cret@" if given_by == "the address" else ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("//", f"//{account}"))
    for name, value in (("USERNAME", "me"), ("PASSWORD", "s@cret")):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "" if account else value)
    assert links.pages(tmp_path, "small")["k2"] == f"{server}/#/experiments/7/runs/r2"
    monkeypatch.setattr(Mlflow, "wanted", "Basic another")
    assert links.pages(tmp_path, "small") == {}


@pytest.mark.parametrize("address", ["http://me:secret@", "http://host:port", "http://[", "http://a b"])
def test_an_address_that_is_none_gives_no_pages(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "small.mlflow").write_text("{}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert links.pages(tmp_path, "small") == {}
