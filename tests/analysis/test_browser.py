"""The pages in a real browser: clicked through without a complaint, and without a request to anywhere."""

import math
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter

import pandas
import pytest
from msgspec.structs import replace

from tests.analysis.browser import CHROMIUM, Browser
from tests.analysis.synthetic import config, summary, write_results, write_steps
from vendomini.analysis.report.build import write_report
from vendomini.analysis.statistics.survival import kaplan_meier
from vendomini.analysis.traces.episodes import Library
from vendomini.analysis.traces.server import TraceServer
from vendomini.analysis.traces.static import write_dashboard, write_static
from vendomini.cluster.status import status
from vendomini.config.grid import expand
from vendomini.config.load import build_phase
from vendomini.records import Halt, Results, write_record

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")

ATTACK = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'"></pre></script><!--'


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


@pytest.fixture
def quiet(browser):
    """The browser, which must have nothing to complain of at the end."""
    browser.complaints.clear()
    browser.requests.clear()
    yield browser
    assert browser.complaints == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """18 runs; the first crashed at step 1,200 of 5,000, and began with everything a model can say as an attack."""
    root = tmp_path_factory.mktemp("results")
    tree = config(replications=2, max_steps=60)
    write_results(root, tree)
    spec = next(iter(expand(build_phase(tree))))
    paths = Results(root).run(spec.run_id)
    paths.steps.unlink()
    said = {"completion": ATTACK + "x" * 1_000_000, "thought": ATTACK, "tool": ATTACK, "arguments": {ATTACK: ATTACK}}
    write_steps(paths.steps, 3, **said)
    write_steps(paths.steps, 5000, 1200, "looping")
    write_record(paths.summary, summary(spec, "crashed", 1200, 5000, "looping"))
    return root


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    return write_report(folder, tmp_path_factory.mktemp("out"), figures=False)


@pytest.fixture(scope="module")
def served(folder):
    with TraceServer(Library([folder])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


# ----------------------------------------------------------------------------------------------- report


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_report_fits_and_asks_nobody(quiet, page, width, theme):
    quiet.open(page.as_uri(), width=width, theme=theme)
    drawn = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
    assert quiet.wait(drawn)
    assert quiet.run("document.documentElement.scrollWidth") <= width
    assert [address for address in quiet.requests if not address.startswith("data:")] == [page.as_uri()]


CUT_OFF = """[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => box.getAttribute('aria-label'))"""
ASKEW = """[...document.querySelectorAll('table.sortable')].flatMap(table => [...table.tHead.rows[0].cells].filter(
    (head, place) => [...table.tBodies[0].rows].some(row => row.cells[place].classList.contains('number'))
        && getComputedStyle(head.firstChild).textAlign !== 'right').map(head => head.textContent))"""


@pytest.mark.parametrize("width", [1400, 1000])
def test_no_table_is_cut_off_and_headings_stand_above_their_numbers(quiet, page, width):
    quiet.open(page.as_uri(), width=width)
    assert quiet.run(CUT_OFF) == []
    assert quiet.run(ASKEW) == []


def test_axis_titles_fit_their_figures(quiet, page):
    quiet.open(page.as_uri(), width=1000)
    quiet.wait("document.querySelectorAll('.plot .ytitle').length > 3")
    taller = """[...document.querySelectorAll('.plot .ytitle')].filter(title =>
        title.getBoundingClientRect().height > title.closest('.plot').getBoundingClientRect().height * 0.8)"""
    assert quiet.run(f"{taller}.map(title => title.textContent)") == []


def test_what_the_report_has_not_is_one_list_at_its_end(quiet, page):
    quiet.open(page.as_uri())
    assert quiet.run("[...document.querySelectorAll('main section h2')].at(-1).textContent") == "Not in this report"
    assert "What failed: Nothing failed." in quiet.text(".absent")
    assert (
        quiet.run("[...document.querySelectorAll('nav a')].some(link => link.textContent === 'What failed')") is False
    )


def test_figures_are_named_groups_and_legends_have_titles(quiet, page):
    """A picture may hold no buttons, and the figures' toolbars do."""
    quiet.open(page.as_uri())
    assert quiet.run("document.querySelectorAll('[role=img] button, [role=img] a, [role=img] [tabindex]').length") == 0
    assert quiet.text("#figure-survival .legendtitletext") == "model"


def test_on_paper_no_figure_covers_another(quiet, page):
    quiet.open(page.as_uri(), width=794, media="print")
    spills = "[...document.querySelectorAll('figure')].filter(box => box.scrollHeight > box.clientHeight + 1).length"
    quiet.run("document.querySelectorAll('.plot .plot-container').forEach(inner => { inner.style.height = '0'; })")
    assert quiet.run(spills) == 0


def test_the_report_can_be_used(quiet, page):
    quiet.open(page.as_uri())
    title = "#figure-survival .title"
    assert quiet.text(title) == "Survival by model"
    quiet.choose("#figure-survival [data-choice='first']", "p_shock")
    assert quiet.text(title) == "Survival by p_shock"
    quiet.choose("#figure-survival [data-choice='second']", "Qwen/Qwen3-32B")
    assert quiet.text(title) == "Survival by p_shock, Qwen/Qwen3-32B"
    assert "% of" in quiet.run("document.querySelector('#figure-survival .plot').getAttribute('aria-label')")
    bands = (
        "document.querySelector('#figure-survival .plot').data.filter(t => t.meta.role === 'band' && t.visible).length"
    )
    shown = quiet.run(bands)
    quiet.click("#figure-survival [data-choice='bands']")
    assert {shown, quiet.run(bands)} == {0, 3}


def test_tables_sort_by_a_click_and_by_the_keyboard(quiet, page):
    quiet.open(page.as_uri())
    column = (
        "[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map(r => Number(r.cells[4].dataset.sort))"
    )
    header = "table.sortable th:nth-child(5)"
    quiet.click(f"{header} button")
    assert quiet.run(column) == sorted(quiet.run(column))
    assert quiet.run(f"document.querySelector('{header}').getAttribute('aria-sort')") == "ascending"
    quiet.run(f"document.querySelector('{header} button').focus()")
    quiet.key("Enter")
    assert quiet.run(column) == sorted(quiet.run(column), reverse=True)


def test_the_theme_button_redraws_everything(quiet, page):
    quiet.open(page.as_uri(), theme="light")
    colour = "document.querySelector('#figure-survival .plot').data.find(t => t.line).line.color"
    before = quiet.run(colour)
    quiet.click("#theme")
    assert quiet.run("document.documentElement.dataset.theme") == "dark"
    assert quiet.run(colour) != before
    quiet.run("localStorage.clear()")


def test_every_control_of_the_report_has_a_name(quiet, page):
    quiet.open(page.as_uri())
    nodes = quiet.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "checkbox", "link", "img", "table", "region"}
    named = [n for n in nodes if not n["ignored"] and n["role"]["value"] in roles]
    assert len(named) > 30
    assert [n for n in named if not n.get("name", {}).get("value")] == []


# ----------------------------------------------------------------------------------------------- traces


def test_runs_are_filtered(quiet, served):
    quiet.open(served)
    assert quiet.text("#count") == "18 of 18 runs"
    quiet.choose("[data-key='model']", "Qwen/Qwen3-32B")
    assert quiet.text("#count") == "6 of 18 runs"
    quiet.choose("[data-key='parameter:pe_induction.p_shock']", "0.4")
    assert quiet.text("#count") == "2 of 18 runs"
    quiet.choose("[data-key='model']", "scripted/fragile (synthetic)")
    assert "(synthetic)" in quiet.text("#runs")


def test_a_long_episode_is_read_page_by_page(quiet, served):
    quiet.open(served)
    quiet.choose("[data-key='ending']", "crashed: looping")
    quiet.choose("[data-key='model']", "meta-llama/Llama-3.1-8B-Instruct")
    quiet.click("#runs li button")
    quiet.wait("document.querySelector('#step').dataset.step === '1'")
    quiet.click("#crash")
    quiet.wait("document.querySelector('#step').dataset.step === '1200'")
    assert quiet.text("#step h3") == "Step 1200, day 300"
    assert "looping" in quiet.text("#step .pill.event")
    quiet.click("#next")
    quiet.wait("document.querySelector('#step').dataset.step === '1201'")
    quiet.key("k")
    quiet.wait("document.querySelector('#step').dataset.step === '1200'")
    quiet.key("s")
    quiet.wait("document.querySelector('#step').dataset.step === '1205'")
    assert "shock: temporal" in quiet.text("#step p")
    quiet.key("End")
    quiet.wait("document.querySelector('#step').dataset.step === '5000'")
    assert quiet.run("document.querySelectorAll('*').length") < 1500
    assert all(address.startswith(served) for address in quiet.requests if not address.startswith("data:"))
    assert sum("/steps?" in address for address in quiet.requests) <= 4


def test_claims_and_the_strip_are_labelled(quiet, served, tmp_path):
    steps = ("run", "-c", "configs/demo.yaml", "--limit", "1", "-o", "simulation.max_steps=9", "-r", str(tmp_path))
    subprocess.run([sys.executable, "-m", "vendomini", *steps], check=True, capture_output=True)
    library = Library([tmp_path])
    quiet.open(write_static(library, *library.select(None, None, None)[0], tmp_path / "run.html").as_uri())
    claims = quiet.run("[...document.querySelectorAll('#step th, #step td')].map(cell => cell.textContent)")
    assert claims[:5] == ["claim", "made at step", "expected", "actual", "error"]
    assert "success true, storage after 100, budget after 2000" in claims
    assert quiet.run("[...document.querySelectorAll('.axis span')].map(tick => tick.textContent)") == ["1", "5", "9"]


def test_an_address_leads_back_to_a_step(quiet, served, folder):
    run_id = Results(folder).run_ids()[0]
    quiet.open(f"{served}#run=0/{run_id}&step=7")
    quiet.wait("document.querySelector('#step').dataset.step === '7'")
    assert quiet.text("#name") == run_id


def test_a_name_that_is_no_run_gets_a_sentence(browser, served):
    browser.open(f"{served}#run=0/..%2F..%2Fetc&step=1")
    browser.wait("document.querySelector('#name').textContent.includes('is not a run id')")
    browser.complaints.clear()


@pytest.mark.parametrize("kind", ["served", "static"])
def test_what_a_model_wrote_stays_text(quiet, served, folder, tmp_path, kind):
    spec = next(iter(expand(build_phase(config(replications=2, max_steps=60)))))
    if kind == "static":
        file = write_static(Library([folder]), 0, spec.run_id, tmp_path / "episode.html")
        quiet.open(file.as_uri())
    else:
        quiet.open(f"{served}#run=0/{spec.run_id}&step=1")
    quiet.wait("document.querySelector('#step').dataset.step === '1'")
    assert ATTACK in quiet.text("#step")
    assert quiet.run("document.title") == spec.run_id
    assert quiet.run("document.querySelectorAll('#step script, #step img').length") == 0
    quiet.click("#step details:last-of-type summary")
    quiet.click("#step details:last-of-type .all")
    assert len(quiet.text("#step details:last-of-type pre")) == 1_000_000 + len(ATTACK)
    if kind == "static":
        quiet.click("#last")
        quiet.wait("document.querySelector('#step').dataset.step === '5000'")
        assert quiet.requests == [file.as_uri()]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_reader_fits_a_phone(quiet, served, folder, theme):
    quiet.open(served, width=390, height=844, theme=theme)
    assert quiet.run("document.documentElement.scrollWidth") <= 390
    quiet.click("#runs li button")
    quiet.wait("document.querySelector('#step').dataset.step === '1'")
    assert quiet.run("getComputedStyle(document.querySelector('#library')).display") == "none"
    assert quiet.run("document.documentElement.scrollWidth") <= 390
    quiet.click("#back")
    quiet.wait("getComputedStyle(document.querySelector('#library')).display !== 'none'")


# -------------------------------------------------------------------------------------------- dashboard


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """54 runs at 3 doses; of one, only 25 steps are there so far; one failed, one has not begun."""
    root = tmp_path_factory.mktemp("running") / "live"
    tree = config(replications=6, shocks=(0.05, 0.4, 0.1))
    specs = list(expand(build_phase(tree)))
    write_results(root, tree, hazard=0.01, steps=False)
    results = Results(root)
    unfinished, failed, absent = (results.run(spec.run_id) for spec in specs[:3])
    unfinished.summary.unlink()
    write_steps(unfinished.steps, 25)
    reason = "the server <b>went</b> away"
    write_record(failed.summary, replace(summary(specs[1], "failed", None, 0), event_observed=None, reason=reason))
    shutil.rmtree(absent.folder)
    reason = "90% of its <i>first</i> 40 replies can't be used"
    halt = Halt(key="0" * 16, model="a/b", cause="replies", reason=reason, halted_at="2026-11-25T10:00:00+00:00")
    results.halt(halt.key).parent.mkdir()
    write_record(results.halt(halt.key), halt)
    for run in (unfinished, failed):  # not written to lately: nobody has them
        os.utime(run.steps, (0, 0))
    return results


@pytest.fixture(scope="module")
def dashboard(running):
    with TraceServer(Library([running.root]), status=lambda: [status(running).as_json()]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{server.url}dashboard"
        server.shutdown()


@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (390, "dark")])
def test_the_dashboard_fits_and_asks_nobody(quiet, dashboard, width, theme):
    quiet.open(dashboard, width=width, theme=theme)
    assert quiet.run("document.documentElement.scrollWidth") <= width
    assert {address.rsplit("/", 1)[0].removesuffix("/api") for address in quiet.requests if "data:" not in address} == {
        dashboard.rsplit("/", 1)[0]
    }


def test_the_dashboard_tells_where_an_experiment_stands(quiet, dashboard, running):
    quiet.open(dashboard)
    endings = Counter(found.ending for run_id in running.run_ids() if (found := running.summary(run_id)))
    for ending in ("survived", "crashed", "bankrupt"):
        assert f"{endings[ending]} {ending}" in quiet.text(".experiment")
    assert status(running).endings == {ending: endings[ending] for ending in endings if ending != "failed"}
    assert "51 of 54 runs done" in quiet.text(".experiment")
    assert "1 interrupted · 1 not begun · 1 failed" in quiet.text(".experiment")
    assert "a/b is stopped: 90% of its <i>first</i> 40 replies can't be used" in quiet.text(".experiment .warning")
    assert quiet.text("#reasons") == "1 × the server <b>went</b> away"
    cells = quiet.run("[...document.querySelectorAll('#cells tbody tr')].map(row => row.cells[1].textContent)")
    assert cells == ["0.05", "0.1", "0.4"] * 3
    numbers = "[...document.querySelectorAll('#cells tr:nth-child(1)')].map(r => [...r.cells].map(c => c.className))"
    head, first = quiet.run(numbers)
    assert [name.split(" ")[0] for name in first] == head


def test_the_dashboards_curves_are_those_of_the_statistics(quiet, dashboard, running):
    """By the median of each dose, with the unfinished run censored at its 25th step."""
    quiet.open(dashboard)
    shown = quiet.run("document.getElementById('curves').getAttribute('aria-label')")
    rows = []
    for run_id in running.run_ids():
        found = running.summary(run_id)
        dose = running.info(run_id).parameters["pe_induction"]["p_shock"]
        if found is None:
            rows.append((dose, 25.0, False))
        elif found.finished:
            rows.append((dose, float(found.time_to_crash), found.event_observed))
    frame = pandas.DataFrame(rows, columns=["dose", "durations", "event_observed"])
    for dose, group in frame.groupby("dose"):
        median = kaplan_meier(group, str(dose), 100).median.value
        words = f"{median:,.0f}" if math.isfinite(median) else "not reached"
        assert f"{dose:g}: {len(group)} runs, median {words}" in shown
    assert frame["event_observed"].sum() > 10


def test_a_cell_of_the_dashboard_leads_to_its_episodes(quiet, dashboard):
    quiet.open(dashboard)
    quiet.click("#cells tbody tr:nth-child(2) a")
    quiet.wait("document.querySelector('#count')?.textContent")
    assert quiet.text("#count") == "6 of 53 runs"
    doses = "[...document.querySelector(\"[data-key='parameter:pe_induction.p_shock']\").options].map(o => o.value)"
    assert quiet.run(doses) == ["", "0.05", "0.1", "0.4"]


def test_the_dashboard_shows_every_cell_of_the_plan_from_the_beginning(quiet, tmp_path):
    tree = config(replications=6, shocks=(0.05, 0.4, 0.1))
    write_results(tmp_path / "begun", tree, hazard=0.01, steps=False)
    results = Results(tmp_path / "begun")
    for run_id in results.run_ids()[1:]:
        shutil.rmtree(results.run(run_id).folder)
    library = Library([results.root])
    with TraceServer(library, status=lambda: [status(results).as_json()]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        quiet.open(f"{server.url}dashboard")
        rows = quiet.run(
            "[...document.querySelectorAll('#cells tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        )
        assert sorted(row[2] for row in rows) == ["0 of 6"] * 8 + ["1 of 6"]
        assert sorted(row[-1] for row in rows) == ["read", *["–"] * 8]
        quiet.click("#cells tbody a")
        quiet.wait("document.querySelector('#count')?.textContent")
        assert quiet.text("#count") == "1 of 1 runs"
        server.shutdown()
    shutil.rmtree(results.run(results.run_ids()[0]).folder)
    assert {run["ending"] for run in library.runs(planned=True)} == {"not begun"}, "what is deleted has not ended"


def test_the_dashboard_as_a_file(quiet, running, tmp_path):
    file = write_dashboard(Library([running.root]), [status(running).as_json()], tmp_path / "page.html")
    quiet.open(file.as_uri())
    assert quiet.text("#reasons") == "1 × the server <b>went</b> away"
    assert quiet.text("#cells th:last-child") == "tokens/s a run", "a file leads to no episodes"
    assert [address for address in quiet.requests if not address.startswith("data:")] == [file.as_uri()]
