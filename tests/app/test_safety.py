"""Which requests the page answers: its own, under its own name; and what becomes of hostile ones."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.types import Message
from support.page import HOST, ORIGIN, client_of

from convolab.app.safety import MAX_BODY_BYTES, MAX_UPLOAD_BYTES, AllowedHosts, Tokens, is_loopback
from convolab.app.server import AppState
from convolab.core.files import sha256_of
from convolab.core.trust import trust_here
from convolab.models.registry import trust_named

START = "/api/train/start"


def require_one_line(text: str) -> str:
    """The error of an answer, which is one line and no traceback."""
    error = json.loads(text)["error"]
    assert error
    assert "\n" not in error
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8360",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1.nip.io:8360",
        "localhost:8360.",
        "",
        "0:8360",
    ],
)
def test_a_name_that_somebody_pointed_here_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/runs", headers={"Host": host})
    assert answer.status_code == 421
    assert "not known under that name" in require_one_line(answer.text)


@pytest.mark.parametrize("host", [HOST, "localhost:8360", "LOCALHOST:8360", "[::1]:8360"])
def test_this_machines_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:8360"},
        {"Origin": "http://localhost:8360"},
        {**ORIGIN, "Sec-Fetch-Site": "cross-site"},
        {**ORIGIN, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_what_changes_something_is_taken_from_this_page_alone(
    client: TestClient, state: AppState, headers: dict[str, str]
) -> None:
    answer = client.post(START, json={"epochs": "1"}, headers=headers)
    assert answer.status_code == 403
    require_one_line(answer.text)
    assert state.jobs.entries() == []
    assert client.post(START, json={"epochs": "1"}, headers=ORIGIN).status_code == 200


def test_another_page_may_link_to_this_one_and_read_nothing_else(client: TestClient) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/?tab=compare", headers=link).status_code == 200
    assert client.get("/api/runs", headers=link).status_code == 403
    assert (
        client.get("/static/core.js", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code
        == 403
    )


@pytest.mark.parametrize("header", ["Host", "Origin"])
def test_a_header_given_twice_is_refused(client: TestClient, header: str) -> None:
    pairs = [("Host", HOST), (header, HOST if header == "Host" else ORIGIN["Origin"]), (header, "evil.example")]
    assert client.get("/api/runs", headers=pairs).status_code == 400


@pytest.mark.parametrize("path", ["/", "/api/runs", "/static/app.js", "/nothing"])
def test_every_answer_lets_the_page_load_from_this_machine_only(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/..%2f..%2fserver.py", "/static/%2e%2e/answers.py", "/static/", "/static/page.html", "/static/a%00.js",
     "/etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/api"],
)  # fmt: skip
def test_no_path_leads_to_another_file(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    require_one_line(answer.text)


@pytest.mark.slow
def test_a_large_request_is_refused_before_it_is_read(client: TestClient) -> None:
    too_large = client.post(START, content=b"x" * (MAX_BODY_BYTES + 1), headers=ORIGIN)
    assert too_large.status_code == 413
    # An unknown length is counted as it comes.
    streamed = client.post(
        "/api/uploads", content=(bytes(1_000_000) for _ in range(MAX_UPLOAD_BYTES // 1_000_000 + 2)), headers=ORIGIN
    )
    assert streamed.status_code == 413
    require_one_line(streamed.text)
    assert client.get("/?" + "a" * 20_000).status_code == 414


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'{"epochs": 3}', b'{"epochs": "' + b"9" * 11_000 + b'"}', b"[" * 50_000, b"null"]
)
def test_a_body_that_is_no_form_is_one_line(client: TestClient, state: AppState, body: bytes) -> None:
    answer = client.post(START, content=body, headers=ORIGIN)
    assert answer.status_code == 400
    require_one_line(answer.text)
    assert state.jobs.entries() == []


def test_another_address_needs_a_token_that_works_once(state: AppState) -> None:
    following: list[str] = []
    tokens = Tokens(following.append)
    first = tokens.next
    teacher, student = (client_of(state, "0.0.0.0", tokens) for _ in range(2))
    for path in ("/", "/?token=wrong", "/api/runs", "/static/app.js", f"/api/runs?token={first}"):
        assert teacher.get(path).status_code == 403
    answer = teacher.get(f"/?token={first}&tab=compare", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?tab=compare")
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    assert teacher.get("/api/runs").status_code == 200
    assert student.get(f"/?token={first}").status_code == 403
    assert student.get(f"/?token={following[0]}").status_code == 200
    assert len(following) == 2


def test_a_page_of_this_machine_is_called_by_this_machines_names_and_one_of_the_net_by_numbers_too() -> None:
    assert not is_loopback("0.0.0.0")
    net = AllowedHosts("0.0.0.0", 8360)
    assert "192.168.1.5:8360" in net
    assert "evil.example:8360" not in net
    assert "192.168.1.5:8360" not in AllowedHosts("127.0.0.1", 8360)


HOSTILE_NAMES = [
    "..", "../..", "/etc", "a/../..", "~", "~root", "-rf", "--trust", ".hidden", "a\0b", "a\nb", "\u202egnp.exe", "C:\\x", "..\\..",
    "a" * 300, "con/", "$(id)", "`id`", "a;id", "<script>", "'\"", "%2e%2e", "\ud800", " ",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_one_line_and_makes_no_folder(
    client: TestClient, state: AppState, tmp_path: Path, name: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    if name.strip():
        started = client.post(START, content=json.dumps({"epochs": "1", "name": name}), headers=ORIGIN)
        assert started.status_code == 400
        require_one_line(started.text)
    for path, key in (
        ("/api/runs/curves", "run"),
        ("/api/compare", "study"),
        ("/report", "study"),
        ("/api/compare", "run"),
    ):
        answer = client.get(path, params={key: [name.encode("utf-8", "replace").decode(), "x"]})
        assert answer.status_code == 400
        require_one_line(answer.text)
    assert client.post("/api/train/resume", content=json.dumps({"run": name}), headers=ORIGIN).status_code == 400
    assert state.jobs.entries() == []
    assert [path for path in sorted(tmp_path.rglob("*")) if "queue" not in str(path)] == [
        p for p in before if "queue" not in str(p)
    ]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="this system has no links")
def test_no_link_is_followed_out_of_the_folder_of_runs(client: TestClient, state: AppState, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "summary.json").write_text("{}")
    (state.runs.root / "link").symlink_to(outside)
    inside = state.runs.root / "inside"
    inside.mkdir()
    (inside / "summary.json").symlink_to("/etc/passwd")
    for name in ("link", "inside", "link/../link"):
        answer = client.get("/api/runs/curves", params={"run": name})
        assert answer.status_code == 400
        assert "link" in require_one_line(answer.text) or "choose one" in answer.text
    listed = client.get("/api/runs").json()["runs"]
    assert [(run["name"], run["status"]) for run in listed] == [("inside", "damaged")]


@pytest.mark.parametrize(
    "values",
    [
        {"data": "folder:/etc"}, {"data": "npz:/etc/passwd"}, {"more": "data.name=csv:/etc/passwd"}, {"net": "/tmp/evil.py:Net"},
        {"net": "evil.py:Net"}, {"net": "os:system"}, {"more": "model.weights=/etc/passwd"}, {"more": "optimizer.name=evil.py:Opt"},
        {"augment": "evil.py:flip"}, {"more": "validation_metric.name=evil.py:metric"}, {"net": "--trust"}, {"epochs": "-1"}, {"epochs": "1e9"},
        {"lr": "nan"}, {"lr": "inf"}, {"more": "x"}, {"more": "a=b"}, {"option.channels": "[" * 300}, {"batch_size": "9" * 5000}, {"schedule": "cosin"},
    ],
)  # fmt: skip
def test_a_form_opens_no_path_and_runs_no_code_that_was_not_named_before(
    client: TestClient, state: AppState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n")
    for path, extra in ((START, {}), ("/api/compare/start", {"grid": "training.batch_size=64,32"})):
        answer = client.post(path, json={**values, **extra}, headers=ORIGIN)
        assert answer.status_code == 400
        require_one_line(answer.text)
    assert state.jobs.entries() == []
    assert not (tmp_path / "ran").exists()


def test_a_study_runs_no_code_that_its_values_name(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n")
    for grid in (
        "model.name=evil.py:Net,shallow_net",
        "data.name=digits,folder:/etc",
        "optimizer.name=sgd,evil.py:Opt",
    ):
        answer = client.post("/api/compare/start", json={"grid": grid}, headers=ORIGIN)
        assert answer.status_code == 400
        require_one_line(answer.text)
    assert not (tmp_path / "ran").exists()


TRUSTED = b"open('ran', 'w').close()  # by another command\n"


@pytest.mark.parametrize(
    "values",
    [
        {"net": "mine.py:Net"}, {"net": "mine:Net"}, {"option.name": "mine.py:Net"}, {"more": "model.name=mine.py:Net"},
        {"more": "optimizer.name=mine.py:Net"}, {"more": "schedule.name=mine:Net"}, {"more": "loss.name=mine.py:Net"},
        {"more": "sampling.name=mine.py:Net"}, {"more": "validation_metric.name=mine.py:Net"}, {"augment": "flip, mine.py:Net(2)"},
        {"more": 'data.augment=["mine:Net"]'}, {"net": "/nowhere/there.py:Net"}, {"net": "folder/../mine.py:Net"},
    ],
)  # fmt: skip
def test_code_that_was_trusted_before_runs_on_the_page_only_if_net_named_it(
    client: TestClient, state: AppState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_bytes(TRUSTED)
    trust_here([sha256_of(TRUSTED)])
    for path, extra in ((START, {}), ("/api/compare/start", {"grid": "training.batch_size=64,32"})):
        answer = client.post(path, json={**values, **extra}, headers=ORIGIN)
        error = require_one_line(answer.text)
        assert answer.status_code == 400
        assert ":Net' is code that the page was not given: convolab app --net FILE:NAME offers" in error
    assert state.jobs.entries() == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "grid",
    ["optimizer.name=sgd,mine.py:Net", "loss.name=cross_entropy,mine:Net", 'data.augment=["flip"],["flip","mine.py:Net"]'],
)  # fmt: skip
def test_code_that_was_trusted_before_is_no_value_of_a_study(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_bytes(TRUSTED)
    trust_here([sha256_of(TRUSTED)])
    answer = client.post("/api/compare/check", json={"grid": grid}, headers=ORIGIN)
    assert "is code that the page was not given" in require_one_line(answer.text)
    assert not (tmp_path / "ran").exists()


def test_no_file_of_weights_is_opened_to_refuse_it(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pth").write_bytes(b"weights")
    forms = [{"more": f"model.weights={name}"} for name in ("there.pth", "missing.pth")]
    errors = [require_one_line(client.post(START, json=values, headers=ORIGIN).text) for values in forms]
    study = client.post("/api/compare/start", json={**forms[0], "grid": "optimizer.lr=0.1,0.01"}, headers=ORIGIN)
    assert {*errors, require_one_line(study.text)} == {
        "the page reads no file of weights: use the command line for model.weights"
    }


NETWORK = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""


@pytest.mark.slow
def test_a_network_that_net_named_is_offered_and_another_of_its_file_is_not(
    state: AppState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(NETWORK)
    trust_named("mine.py:Net")
    client = client_of(replace(state, nets=("mine.py:Net",)))
    for path, extra in (("/api/train/check", {}), ("/api/compare/check", {"grid": "optimizer.lr=0.1,0.01"})):
        found = client.post(path, json={"net": "mine.py:Net", **extra}, headers=ORIGIN).json()
        assert "mine.py:Net" in found["command"], found
        refused = client.post(path, json={"net": "mine.py:nn", **extra}, headers=ORIGIN)
        assert "is code that the page was not given" in require_one_line(refused.text)


def test_a_folder_whose_name_is_no_utf8_hides_no_other_run(client: TestClient, state: AppState) -> None:
    name = os.fsdecode(b"bad\xff")
    try:
        (state.runs.root / name).mkdir()
    except OSError:
        pytest.skip("this system takes no such name")
    for file in ("recipe.toml", "summary.json", "metrics.jsonl"):
        (state.runs.root / name / file).write_text("{}")
    for path in ("/api/runs", "/api/compare/list", "/api/networks/list"):
        assert client.get(path).status_code == 200, path


def test_a_number_of_thousands_of_digits_is_one_line(client: TestClient) -> None:
    values = {"seeds": "9" * 5000, "grid": "optimizer.lr=1"}
    answer = client.post("/api/compare/check", json=values, headers=ORIGIN)
    assert answer.status_code == 200
    assert "give a number from 1 to 1000" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/uploads?name=a", START, "/api/count"])
def test_a_request_that_the_browser_breaks_off_is_no_fault(state: AppState, path: str) -> None:
    received = iter([{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(received)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = {"host": HOST, "origin": ORIGIN["Origin"], "content-length": "1000"}
    address, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "POST",
        "path": address,
        "raw_path": address.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def answer() -> None:
        await client_of(state).app(scope, receive, send)

    asyncio.run(answer())  # it raises nothing, and so the terminal shows nothing
    assert sent[0]["status"] == 400


@pytest.mark.slow
def test_the_epochs_of_a_run_that_goes_on_are_digits_that_python_knows(looking: TestClient) -> None:
    for epochs in ("٢٣", "1", "-7"):
        values = {"run": "small", "epochs": epochs}
        started = looking.post("/api/train/resume", json=values)
        same = looking.get("/api/train/same-as-resume", params=values)
        for answer in (started, same):
            assert "give the number in all" in require_one_line(answer.text)
