"""The trace reader's server gives nothing to strangers and nothing outside the runs; pages are what the log says."""

import http.client
import json
import os
import threading
from urllib.parse import urlsplit

import pytest

from tests.analysis.synthetic import PROMPT, config, write_results, write_steps
from vendomini.analysis.traces.episodes import Library, index_log, read_page
from vendomini.analysis.traces.server import TraceServer
from vendomini.analysis.traces.static import write_static
from vendomini.errors import ResultsError
from vendomini.records import Results, read_steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("traces")
    write_results(root, config(replications=1, max_steps=30))
    return root


@pytest.fixture(scope="module")
def server(folder):
    with TraceServer(Library([folder])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(server, path, token=None, method="GET", **headers):
    """The raw path goes out as it is: no client tidies it up first."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.putrequest(method, f"/{server.token if token is None else token}/{path}", skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_comes_with_its_policy(server):
    status, headers, body = get(server, "")
    assert status == 200
    assert b"<title>VendoMini traces</title>" in body
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_it_listens_on_loopback_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert len(server.token) >= 32


@pytest.mark.parametrize("token", ["", "x", "api", "..", "%2e%2e"])
def test_who_lacks_the_token_gets_nothing(server, token):
    status, _, body = get(server, "api/runs", token=token)
    assert status == 404
    assert b"run_id" not in body


def test_another_sites_name_for_this_machine_is_refused(server):
    assert get(server, "api/runs", Host="evil.example:80")[0] == 404
    assert get(server, "api/runs", Host=f"localhost:{server.server_address[1]}")[0] == 200


def test_only_reading_is_offered(server):
    assert get(server, "api/runs", method="POST")[0] == 501


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "..%2f..%2fetc",
        "%2fetc%2fpasswd",
        "..%2f..%2fplans",
        ".",
        "%00",
        "nothing",
        "%ff",
        "..%5c",
        "a%2fb",
        "x" * 5000,
    ],
)
@pytest.mark.parametrize("rest", ["", "/steps?first=1&count=5"])
def test_no_name_leads_out_of_the_runs(server, name, rest):
    status, _, body = get(server, f"api/runs/0/{name}{rest}")
    assert status == 404
    assert b"root:" not in body


OTHER_PATHS = ["../../etc/passwd", "assets/report.html", "..%2ftraces.py", "serve.py", "api/runs/1/x", "api/runs/-1/x"]
BAD_QUERIES = ["api/runs/x/y", "api/runs/0/x/steps?first=a&count=1", "api/runs/0/x/steps"]


@pytest.mark.parametrize("path", OTHER_PATHS + BAD_QUERIES)
def test_nothing_else_is_served(server, path):
    assert get(server, path)[0] == 404


def test_a_link_out_of_the_runs_is_no_run(folder, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "steps.jsonl").write_text("secret")
    link = folder / "runs" / "linked"
    link.symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(ResultsError, match="is not a run in"):
            Library([folder]).episode(0, "linked")
        assert "linked" not in {run["run_id"] for run in Library([folder]).runs()}
    finally:
        link.unlink()


def test_runs_are_listed_with_what_varies(server):
    runs = json.loads(get(server, "api/runs")[2])
    assert len(runs) == 9
    assert set(runs[0]["parameters"]) == {"pe_induction.p_shock"}
    assert {run["model"] for run in runs} >= {"scripted/fragile (synthetic)", "Qwen/Qwen3-32B"}


def test_a_page_of_steps_is_what_the_log_says(server, folder):
    run_id = Results(folder).run_ids()[0]
    logged = list(read_steps(Results(folder).run(run_id).steps))
    episode = json.loads(get(server, f"api/runs/0/{run_id}")[2])
    steps = json.loads(get(server, f"api/runs/0/{run_id}/steps?first=3&count=4")[2])
    assert episode["length"] == len(logged)
    assert episode["system_prompt"] == PROMPT
    assert [step["step"] for step in steps] == [3, 4, 5, 6]
    assert steps[0]["completion"] == logged[2].completion
    assert steps[0]["turn"].startswith('RESULT {"ok":true,"messages":[]}\nOBSERVATION {"step":3,')
    assert get(server, f"api/runs/0/{run_id}/steps?first=1&count=1")[2].decode().count("RESULT") == 0


def test_pages_end_where_the_log_ends(folder):
    paths = Results(folder).run(Results(folder).run_ids()[0])
    index = index_log(paths.steps)
    assert read_page(paths.steps, index, index.steps + 1, 50) == []
    assert [step["step"] for step in read_page(paths.steps, index, index.steps, 50)] == [index.steps]
    assert [step["step"] for step in read_page(paths.steps, index, -5, 7)] == [1]


def test_the_timeline_shows_errors_shocks_and_crashes(tmp_path):
    write_steps(tmp_path / "steps.jsonl", 40, 25, "looping")
    index = index_log(tmp_path / "steps.jsonl")
    assert index.timeline["on"] == [["looping", 25, 40]]
    assert [shock[0] for shock in index.timeline["shocks"]] == [5, 15, 25, 35]
    assert index.timeline["pe"][:4] == [None] * 4
    assert all(value is not None for value in index.timeline["pe"][4:])


def test_a_damaged_log_is_shown_up_to_the_damage(tmp_path):
    log = tmp_path / "steps.jsonl"
    write_steps(log, 10)
    lines = log.read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b"Step 7", b"Step 8")
    log.write_bytes(b"".join(lines))
    index = index_log(log)
    assert index.steps == 6
    assert "steps.jsonl line 7 is damaged" in index.damage
    assert index_log(tmp_path / "none.jsonl").damage == "There is no step log."


def test_a_growing_log_is_read_again(tmp_path):
    write_results(tmp_path, config(replications=1, max_steps=30))
    library = Library([tmp_path])
    run_id = Results(tmp_path).run_ids()[0]
    before = library.episode(0, run_id)["length"]
    write_steps(Results(tmp_path).run(run_id).steps, before + 3)
    assert library.episode(0, run_id)["length"] == before + 3


def test_a_static_file_holds_no_way_out(folder, tmp_path):
    file = write_static(Library([folder]), 0, Results(folder).run_ids()[0], tmp_path / "e.html")
    page = file.read_text()
    assert "default-src 'none'" in page
    assert "http" not in page.split("<script type")[0].replace("http-equiv", "")


def test_selection_names_synthetic_models_either_way(folder):
    library = Library([folder])
    assert (
        len(library.select(None, None, "scripted/fragile"))
        == len(library.select(None, None, "scripted/fragile (synthetic)"))
        == 3
    )
    run_id = Results(folder).run_ids()[0]
    assert library.select([run_id], None, None) == [(0, run_id)]
    with pytest.raises(ResultsError, match="no run matches"):
        library.select(["nothing"], None, None)


def test_runs_without_any_file_are_listed_too(tmp_path):
    write_results(tmp_path, config(replications=1, max_steps=9))
    os.mkdir(tmp_path / "runs" / "empty")
    damaged = Results(tmp_path).run_ids()[0]
    Results(tmp_path).run(damaged).summary.write_text("{}")
    endings = {run["run_id"]: run["ending"] for run in Library([tmp_path]).runs()}
    assert endings["empty"] == "running"
    assert endings[damaged] == "damaged"
