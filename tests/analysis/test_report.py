"""The report states what is in the data, in every state the data can be in, and nothing else."""

import itertools
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest

from tests.analysis.synthetic import config, info, no_effect, summary, write_results, write_run, write_steps
from vendomini.adaptive.looks import look
from vendomini.analysis.report.build import build_sections, write_report
from vendomini.analysis.report.content import (
    Facets,
    Figure,
    Heatmap,
    Note,
    Series,
    Table,
    figures_of,
    interval,
    log_ticks,
    number,
)
from vendomini.analysis.report.figures import draw
from vendomini.analysis.report.interactive import plotly_figure
from vendomini.analysis.report.palette import CATEGORICAL, colours
from vendomini.analysis.report.sections import survival_section
from vendomini.analysis.report.sections_behaviour import endings_section
from vendomini.analysis.report.sections_effects import effects_section
from vendomini.analysis.report.sections_runs import completeness_notes
from vendomini.analysis.statistics.estimate import Estimate, holm
from vendomini.analysis.tables.aggregate import aggregate
from vendomini.analysis.tables.study import open_study, show
from vendomini.config.grid import expand
from vendomini.config.load import build_phase
from vendomini.errors import ResultsError
from vendomini.records import Plan, Results, RunSummary, read_record, write_record
from vendomini.worlds.vending.environment import Vending

TREE = config(replications=6, max_steps=80, models=["Qwen/Qwen3-32B", "scripted/fragile"])


def studied(folder):
    tables = aggregate([folder], folder / "report", workers=1)
    return open_study([folder], tables), tables


def said(blocks):
    return " ".join(block.text for block in blocks if isinstance(block, Note))


def tables_of(folder):
    sections = build_sections(*studied(folder))
    return {block.title: block for section in sections for block in section.blocks if isinstance(block, Table)}


def written(folder):
    return write_report(folder, figures=False).read_text(encoding="utf-8")


class Text(HTMLParser):
    """The text of a page outside scripts and styles, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.text, self.elements, self._inside = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag if tag in {"script", "style"} else self._inside

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if not self._inside:
            self.text.append(data)


# ------------------------------------------------------------------------------------------- findings


def test_a_known_effect_is_stated(tmp_path):
    """Hazards triple with each 0.2 of p_shock, and models do not differ."""
    write_results(tmp_path, config(replications=25, max_steps=80, models=["a", "b"]), steps=False, hazard=0.004)
    for run_id in Results(tmp_path).run_ids():  # the logs are beside the point here
        shorten(tmp_path, run_id)
    sentence = said(effects_section(studied(tmp_path)[0]).blocks)
    found = re.search(r"p_shock, per \+0\.2: × ([\d.]+) \(([\d.]+) to ([\d.]+)\), p < 0\.001", sentence)
    assert found
    ratio, low, high = map(float, found.groups())
    assert low <= 3 <= high
    assert ratio == pytest.approx(3, rel=0.35)
    assert "model:" not in sentence


def test_no_effect_is_stated_where_there_is_none(tmp_path):
    write_results(tmp_path, TREE, ratio=no_effect, hazard=0.02, seed=3)
    assert "No factor shows an effect on the hazard of an event at the 5 % level (Cox regression" in said(
        effects_section(studied(tmp_path)[0]).blocks
    )


def shorten(folder, run_id):
    from vendomini.records import RunSummary, read_record

    paths = Results(folder).run(run_id)
    record = read_record(paths.summary, RunSummary)
    record.steps = 0
    write_record(paths.summary, record)


def test_every_p_value_stands_beside_an_effect_size_and_an_n(tmp_path):
    write_results(tmp_path, TREE, hazard=0.01)
    tables = tables_of(tmp_path)
    with_p = [table for table in tables.values() if "p" in table.columns]
    assert len(with_p) >= 5
    for table in with_p:
        assert {"n", "Events"} & set(table.columns)
        assert all(any(isinstance(cell, Estimate) for cell in row) for row in table.rows)
        assert "Method" in table.columns or table.note


def test_tests_are_corrected_for_their_number(tmp_path):
    write_results(tmp_path, TREE, hazard=0.01)
    table = tables_of(tmp_path)["Pairs of p_shock"]
    raw, adjusted = (table.columns.index(name) for name in ("p", "p, Holm"))
    assert len(table.rows) == 3
    assert all(row[adjusted] >= row[raw] for row in table.rows)
    assert any(row[adjusted] > row[raw] for row in table.rows)


def test_crash_types_are_set_against_what_the_experiment_varies(tmp_path):
    tree = config(replications=8, max_steps=80, models=["a"], shocks=[0.4],
                  **{"pe_induction.pe_type_mix": ["temporal_only", "causal_only"]})  # fmt: skip
    write_results(tmp_path, tree, hazard=0.01)
    assert "Does the crash type go with the PE type?" in tables_of(tmp_path)


def test_crash_types_of_two_experiments_are_counted_apart(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, horizon in zip(folders, (70, 80), strict=True):
        tree = config(replications=9, max_steps=horizon, models=["a"], shocks=[0.4],
                      **{"pe_induction.pe_type_mix": ["temporal_only", "causal_only"]})  # fmt: skip
        write_results(folder, tree, hazard=0.01, seed=horizon)
    tables = aggregate(folders, tmp_path / "o", workers=1)
    study = open_study(folders, tables)
    crashed = study.analysed[study.analysed["ending"] == "crashed"].groupby("experiment").size()
    found = {b.title: b for b in endings_section(study).blocks if isinstance(b, Table)}
    for name in "ab":
        assert found[f"Does the crash type go with the PE type, {name}?"].rows[0][1] == crashed[name]


def test_phase_four_states_its_scaling_law(tmp_path):
    sizes = {"x/m-1B": 1, "x/m-8B": 8, "x/m-32B": 32, "x/m-70B": 70}
    tree = config(replications=20, max_steps=400, models=list(sizes), shocks=[0.4])
    write_results(
        tmp_path, tree, steps=False, hazard=0.02, ratio=lambda p: 9 / sizes[p["agent"]["model"]["name"]] ** 0.5 / 3
    )
    for run_id in Results(tmp_path).run_ids():
        shorten(tmp_path, run_id)
    sections = {section.key: section for section in build_sections(*studied(tmp_path))}
    told = said(sections["scaling"].blocks)
    exponent = float(re.search(r"to the power ([\d.]+) \(", told).group(1))
    assert exponent == pytest.approx(0.5, abs=0.25)
    assert "over 4 models" in told


def test_a_preregistered_contrast_comes_first(tmp_path):
    tree = config(replications=6, max_steps=80, models=["a", "b"]) | {
        "analysis": {"primary": [{"factor": "pe_induction.p_shock", "compare": [0.0, 0.4]},
                                 {"factor": "agent.model.name", "compare": ["a", "b"]},
                                 {"factor": "agent.model.name", "compare": ["b", "a"]}]}}  # fmt: skip
    write_results(tmp_path, tree, hazard=0.01)
    first, *_ = build_sections(*studied(tmp_path))
    assert (first.key, first.blocks[0].text[:43]) == ("primary", "Preregistered: p_shock (0.4 − 0) shortens s")
    table = next(block for block in first.blocks if isinstance(block, Table))
    assert table.title == "Primary contrasts"
    assert [row[6] for row in table.rows] == holm([row[5] for row in table.rows])
    (_, paired, unpaired), (_, opposite, reverse) = ([row[0], row[4].value, row[8].value] for row in table.rows[1:])
    assert (paired, unpaired) == pytest.approx((-opposite, -reverse))
    assert paired * unpaired > 0
    assert not any("is exploratory" in block.text for block in first.blocks if isinstance(block, Note))


def test_without_preregistration_the_dose_is_exploratory(tmp_path):
    write_results(tmp_path, TREE, hazard=0.01)
    first, *_ = build_sections(*studied(tmp_path))
    assert "No contrast was preregistered" in said(first.blocks)
    assert len(next(block for block in first.blocks if isinstance(block, Facets)).figures) == 2


COPIED = {
    "pe_mag": ["low", "medium", "high"],
    "pe_type_mix": ["realistic", "temporal_only"],
    "observability": ["full", "delayed", "partial", "hidden"],
    "notice_delay_days": [1, 3],
}
"""Factors that do nothing at dose 0, each with levels that grids once ran there: the same runs again, to the byte."""


@pytest.mark.parametrize("factor", COPIED)
def test_runs_that_were_made_again_at_no_dose_count_once(tmp_path, factor):
    levels = COPIED[factor]
    for level in levels:
        tree = config(replications=4, max_steps=40, models=["a"])
        tree["pe_induction"] = {factor: level}
        write_results(tmp_path, tree, seed=1, hazard=0.02)
    study, tables = studied(tmp_path)
    extra = 4 * (len(levels) - 1)
    assert (len(study.runs), len(study.analysed), study.copies) == (12 * len(levels), 12 * len(levels) - extra, extra)
    assert study.analysed.loc[study.analysed["pe_induction.p_shock"] == 0, f"pe_induction.{factor}"].isna().all()
    assert f"{extra} runs at dose 0 are others again" in said(completeness_notes(study))
    figures = {figure.key: figure for figure in figures_of(build_sections(study, tables))}
    by_factor = figures[f"dose-by-{factor.replace('_', '-')}"]
    assert [list(line.x) for line in by_factor.series] == [[0.0, 0.2, 0.4]] * len(levels)


def test_each_factor_that_does_nothing_at_dose_0_is_tried():
    assert {f"pe_induction.{factor}" for factor in COPIED} == set(Vending.inert_without_dose)


def test_copies_that_differ_in_all_of_these_factors_count_once(tmp_path):
    for magnitude, mix, seen in itertools.product(("low", "high"), ("realistic", "temporal_only"), ("full", "hidden")):
        tree = config(replications=3, max_steps=40, models=["a"], shocks=(0.0, 0.4))
        tree["pe_induction"] = {"pe_mag": magnitude, "pe_type_mix": mix, "observability": seen}
        write_results(tmp_path, tree, seed=1, hazard=0.02)
    study, _ = studied(tmp_path)
    assert (len(study.runs), len(study.analysed), study.copies) == (48, 27, 21)


def test_two_folders_of_one_experiment_are_told_apart(tmp_path):
    """A repetition, or another engine: the ids are the same."""
    tree = config(replications=3, max_steps=40, models=["a"])
    ids = write_results(tmp_path / "vllm", tree, hazard=0.03)
    write_results(tmp_path / "hf", tree, hazard=0.03, seed=5)
    again = open_study(
        [tmp_path / "vllm", tmp_path / "hf"], aggregate([tmp_path / "vllm", tmp_path / "hf"], tmp_path / "o", workers=1)
    )
    assert [factor.label for factor in again.factors] == ["p_shock", "experiment"]
    for run_id in ids:
        path = Results(tmp_path / "hf").run(run_id).summary
        record = read_record(path, RunSummary)
        record.engine["backend"] = "hf"
        write_record(path, record)
    page = write_report([tmp_path / "vllm", tmp_path / "hf"], tmp_path / "out", figures=False)
    study = open_study(
        [tmp_path / "vllm", tmp_path / "hf"], aggregate([tmp_path / "vllm", tmp_path / "hf"], tmp_path / "out")
    )
    assert [factor.label for factor in study.factors] == ["p_shock", "engine"]
    assert len(study.analysed) == 18
    assert "Survival by engine" in page.read_text(encoding="utf-8")


def test_before_and_after_are_compared_and_never_pooled(tmp_path):
    """Two folders whose configs differ in more than a grid varies: the experiment is a factor, named by its folder."""
    before = config(name="p", replications=4, max_steps=40, models=["a", "b"])
    after = config(name="p", replications=4, max_steps=60, models=["a", "b"])
    write_results(tmp_path / "before", before, hazard=0.03)
    write_results(tmp_path / "after", after, hazard=0.03, seed=3)
    folders = [tmp_path / "before", tmp_path / "after"]
    tables = aggregate(folders, tmp_path / "o", workers=1)
    study = open_study(folders, tables)
    assert [factor.label for factor in study.factors] == ["model", "p_shock", "experiment"]
    assert study.apart.levels == ["after", "before"]
    sections = build_sections(study, tables)
    found = {b.title: b for section in sections for b in section.blocks if isinstance(b, Table)}
    sizes = {(group, by, among): n for group, by, among, n, *_ in found["Every curve in numbers"].rows}
    assert sizes["after", "experiment", "all runs"] == sizes["before", "experiment", "all runs"] == 24
    assert sizes["a", "model", "before"] == sizes["after", "experiment", "a"] == 12
    assert {among for _, by, among in sizes if by != "experiment"} == {
        "before", "after", "a, before", "a, after", "b, before", "b, after"
    }  # fmt: skip
    assert "after: " in said(survival_section(study).blocks)
    contrasts = [row[0].partition(",")[0] for row in found["Main contrast (exploratory)"].rows]
    assert contrasts == ["experiment", "p_shock", "p_shock"]
    runs = study.analysed[study.analysed["ending"] == "crashed"].groupby("experiment").size()
    crashes = found["Crashes by type and severity"]
    assert crashes.columns[0] == "experiment"
    for name in ("before", "after"):
        own = [row for row in crashes.rows if row[0] == name]
        assert sum(row[3] for row in own) == runs[name]
        assert sum(row[4] for row in own) == pytest.approx(1)
        assert found["Replies by model"].columns[:2] == ("model", "experiment")
        assert [row[3] for row in found["What the dose does to the error that shocks cause"].rows if row[0] == name]
        assert {row[3] for row in found["Throughput"].rows if row[0] == name} == {12}


def test_a_trial_in_an_experiments_folder_is_named_and_set_apart(tmp_path):
    """As earlier versions left them: two horizons in one folder."""
    write_results(tmp_path, config(replications=2, max_steps=40, models=["a"]), hazard=0.03)
    (tmp_path / "plans" / "plan.json").rename(tmp_path / "plans" / "a.json")
    write_results(tmp_path, config(replications=2, max_steps=7, models=["a"]), hazard=0.03)
    study, _ = studied(tmp_path)
    assert study.apart.levels == [tmp_path.name, f"{tmp_path.name}@max_steps=7"]
    assert study.analysed["experiment"].value_counts().tolist() == [6, 6]


def test_a_grid_in_two_folders_is_one_experiment(tmp_path):
    """Half of the doses here, half there."""
    write_results(tmp_path / "x", config(replications=2, max_steps=40, models=["a"], shocks=(0.0, 0.2)), hazard=0.03)
    write_results(tmp_path / "y", config(replications=2, max_steps=40, models=["a"], shocks=(0.4, 0.6)), hazard=0.03)
    folders = [tmp_path / "x", tmp_path / "y"]
    study = open_study(folders, aggregate(folders, tmp_path / "o", workers=1))
    assert study.apart is None
    assert study.dose.levels == [0.0, 0.2, 0.4, 0.6]


def test_a_library_that_fails_costs_its_own_place(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("No admissable pairs, see https://example.org")

    write_results(tmp_path, TREE, hazard=0.01)
    monkeypatch.setattr("vendomini.analysis.report.sections_effects.cox", broken)
    page = written(tmp_path)
    assert "Hazard ratios: the computation failed on these data, so it is left out." in page
    assert "example.org" not in page
    assert "Do curves differ at all?" in page


def test_no_part_of_a_usual_report_fails(tmp_path):
    write_results(tmp_path, TREE, hazard=0.01)
    assert "the computation failed" not in written(tmp_path)


def test_replies_that_can_not_be_read_are_told_from_behaviour(tmp_path):
    write_results(tmp_path, TREE, hazard=0.01)
    tables = tables_of(tmp_path)
    rates = tables["Replies by model"]
    assert rates.columns[3:7] == ("Unparsable", "Cut off", "Badly written", "Failed, all causes")
    assert all(row[6] == pytest.approx(1 / 9, abs=0.02) for row in rates.rows)
    levels = tables["Sensitivity to the detectors' thresholds"]
    assert [row[1] for row in levels.rows[:3]] == ["strict", "moderate", "lenient"]


# ---------------------------------------------------------------------------- data in every condition


def test_partial_data_say_how_partial(tmp_path):
    ids = write_results(tmp_path / "r", TREE)
    for run_id in ids[:4]:
        os.rename(tmp_path / "r" / "runs" / run_id, tmp_path / run_id)
    Results(tmp_path / "r").run(ids[5]).summary.unlink()
    notes = said(completeness_notes(studied(tmp_path / "r")[0]))
    assert "Partial data: 31 of 36 runs have finished; 1 in progress, counted as censored" in notes
    assert "4 not begun" in notes


def test_failures_and_damage_are_named_with_their_reasons(tmp_path):
    ids = write_results(tmp_path, TREE)
    spec = next(spec for spec in expand(build_phase(TREE)) if spec.run_id == ids[0])
    failed = summary(spec, "failed", None, 1)
    failed.event_observed, failed.reason = None, "the engine <died>"
    write_record(Results(tmp_path).run(ids[0]).summary, failed)
    Results(tmp_path).run(ids[1]).summary.write_bytes(b"{}")
    table = tables_of(tmp_path)["Runs without a result"]
    assert [row[:2] for row in table.rows] == sorted([[ids[0], "failed"], [ids[1], "damaged"]])
    page = written(tmp_path)
    assert "the engine &lt;died&gt;" in page
    assert "the engine <died>" not in page


def test_cells_that_mix_engines_are_warned_of(tmp_path):
    ids = write_results(tmp_path, TREE)
    spec = next(spec for spec in expand(build_phase(TREE)) if spec.run_id == ids[0])
    other = summary(spec, "survived", 80, 80)
    other.engine = {"backend": "hf", "attention": "sdpa"}
    paths = Results(tmp_path).run(ids[0])
    write_record(paths.summary, other)
    paths.steps.unlink()
    write_steps(paths.steps, 80)
    table = tables_of(tmp_path)["Cells that mix engines"]
    assert len(table.rows) == 1
    assert table.rows[0][-1] == "vllm: 5, hf / sdpa: 1"


def test_synthetic_agents_are_named_so_wherever_they_are_shown(tmp_path):
    write_results(tmp_path, TREE)
    study, tables = studied(tmp_path)
    assert "Synthetic agents: scripted/fragile" in said(completeness_notes(study))
    for figure in figures_of(build_sections(study, tables)):
        text = str(figure)
        assert text.count("scripted/fragile") == text.count("scripted/fragile (synthetic)")


@pytest.mark.parametrize(
    "state", ["nothing begun", "one step", "no events", "only failures", "only damage", "one run", "all alike"]
)
def test_thin_data_make_sentences_and_no_crash(tmp_path, state):
    tree = config(replications=1, max_steps=20, models=["a"], shocks=[0.0] if state == "one run" else [0.0, 0.2])
    specs = list(expand(build_phase(tree)))
    ids = write_results(tmp_path, tree, ratio=lambda _: 1e-9)
    for run_id, spec in zip(ids, specs, strict=True):
        paths = Results(tmp_path).run(run_id)
        if state in {"nothing begun", "one step"}:
            paths.summary.unlink()
            paths.steps.unlink()
            write_record(paths.info, info(spec))
            write_steps(paths.steps, 1 if state == "one step" else 0)
        elif state == "only failures":
            failed = summary(spec, "failed", None, 20)
            failed.event_observed = None
            write_record(paths.summary, failed)
        elif state == "only damage":
            paths.summary.write_bytes(b"{}")
        elif state == "all alike":
            paths.steps.unlink()
            write_steps(paths.steps, 20, 20, "looping")
            write_record(paths.summary, summary(spec, "crashed", 20, 20, "looping"))
    page = written(tmp_path)
    assert "the computation failed" not in page
    told = {
        **dict.fromkeys(["nothing begun", "only failures", "only damage"], "No run has made a step yet"),
        **dict.fromkeys(["one step", "no events"], "has had an event yet"),
        "one run": "No factor varies",
        "all alike": "needs at least 5 events",
    }
    assert told[state] in page


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="holds no runs"):
        write_report(tmp_path)


def test_runs_of_which_none_has_begun_are_one_sentence(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ResultsError, match="no run of .* has begun yet: `vendomini status .*` says what they wait for"):
        write_report(tmp_path)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    write_results(tmp_path / "r", config(replications=1, max_steps=9))
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="choose another folder with --out"):
        write_report(tmp_path / "r", tmp_path / "file" / "out")


# ----------------------------------------------------------------------------------------------- page


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    write_results(tmp_path, TREE)
    parsed = Text(written(tmp_path))
    refer = [
        value for _, attributes in parsed.elements for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert all(value.startswith("#") for value in refer)
    policy = next(a["content"] for tag, a in parsed.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy


def test_names_from_data_stay_text(tmp_path):
    """A model's name goes into labels, tables and embedded data."""
    name = "x/</script><script>alert(1)</script>&<b>"
    write_results(tmp_path, config(replications=2, max_steps=20, models=[name, "b"]))
    parsed = Text(written(tmp_path))
    assert name in "".join(parsed.text)
    assert sum(tag == "script" and "type" not in a for tag, a in parsed.elements) == 3
    assert not any(tag == "b" for tag, _ in parsed.elements)


def test_headings_go_down_one_level_at_a_time(tmp_path):
    write_results(tmp_path, TREE)
    levels = [int(tag[1]) for tag, _ in Text(written(tmp_path)).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_report_is_made_again_with_what_is_new(tmp_path):
    ids = write_results(tmp_path / "r", TREE)
    os.rename(tmp_path / "r" / "runs" / ids[0], tmp_path / "later")
    assert "35 of 36 runs have finished" in written(tmp_path / "r")
    os.rename(tmp_path / "later", tmp_path / "r" / "runs" / ids[0])
    assert "Partial data" not in written(tmp_path / "r")


# -------------------------------------------------------------------------------------------- figures

BOUNDS = ([0.9, 0.4, float("nan")], [1.0, 0.6, 0.3])
STEPS = Series("a", [0.0, 1, 2], [1.0, 0.5, 0.2], *BOUNDS, marks=[1.0, 1.0, 2.0], shape="step")
RATIOS = Series("r", [2.0, 0.5], ["p", "q"], [1.0, 0.2], [4.0, float("inf")], shape="points")
AREAS = [Series("a", [0, 1], [0, 0.2], shape="stack"), Series("b", [0, 1], [0, 0.3], shape="stack")]
LINES = Figure("lines", "T", "x", "y", [STEPS, Series("b", [0, 2], [1, 0.5])], "d", y_range=(0, 1))
FOREST = Figure("forest", "T", "x", "", [RATIOS], "d", forest=True)
STACK = Figure("stack", "T", "x", "y", AREAS, "d")
HEAT = Heatmap("heat", "T", "x", "y", ["a", "b"], ["c", "d"], [[1.0, -2.0], [0.5, 0.0]], [["3", "4"], ["5", "6"]], "d")


@pytest.mark.parametrize("figure", [LINES, FOREST, STACK, HEAT], ids=lambda figure: figure.key)
def test_plotly_accepts_every_figure(figure):
    made = plotly_figure(figure)
    go.Figure(data=made["data"], layout=made["layout"]).to_json()


def test_labels_from_data_are_no_markup_for_plotly():
    made = plotly_figure(Figure("k", "T", "x", "y", [Series("<a href='x'>b</a> & c", [0], [1])], "d"))
    assert made["data"][0]["name"] == "&lt;a href='x'&gt;b&lt;/a&gt; &amp; c"


@pytest.mark.parametrize("figure", [LINES, FOREST, STACK, HEAT], ids=lambda figure: figure.key)
def test_figures_for_papers(figure, tmp_path):
    png, svg, pdf = draw(figure, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    text = "".join(ET.parse(svg).getroot().itertext())
    assert "T" in text
    for label in figure.rows if isinstance(figure, Heatmap) else figure.series[0].y if figure.forest else []:
        assert label in text
    again = tmp_path / "again"
    again.mkdir()
    assert [path.read_bytes() for path in draw(figure, again)] == [path.read_bytes() for path in (png, svg, pdf)]


def test_every_figure_of_a_report_is_written(tmp_path):
    write_results(tmp_path, config(replications=8, max_steps=30, models=["a"], shocks=[0.0, 0.4]), hazard=0.03)
    page = write_report(tmp_path, steps_csv=True)
    names = {path.name for path in (page.parent / "figures").iterdir()}
    assert {"survival-p-shock-all-runs.pdf", "hazard-ratios.svg", "endings.png", "prediction-errors.pdf"} <= names
    assert (page.parent / "steps.csv").stat().st_size > 1000


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("shades", CATEGORICAL)
def test_lines_stand_out_on_light_and_on_dark(shades):
    assert contrast(shades[0], "#ffffff") >= 3
    assert contrast(shades[1], "#1e2024") >= 3


def test_ordered_colours_differ_in_lightness_alone():
    for side, falling in ((0, True), (1, False)):
        steps = [luminance(pair[side]) for pair in colours(11, ordered=True)]
        assert steps == sorted(steps, reverse=falling)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12, "12"),
        (1234.5, "1234"),
        (0.04567, "0.0457"),
        (-3.25, "−3.25"),
        (float("inf"), "not reached"),
        (1e9, "1000000000"),
    ],
)
def test_numbers_as_shown(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "values", [[0.85, 1.3], [0.4, 1.0, 2.2], [0.01, 90.0], [8e9, 70e9], [1.0], [2.0, float("inf"), 3.0]]
)
def test_logarithmic_axes_have_enough_ticks_and_not_too_many(values):
    ticks = log_ticks(values)
    assert 1 <= len(ticks) <= 16
    if len(values) > 1:
        assert len(ticks) >= 3
    assert ticks == sorted(set(ticks))


def test_intervals_as_shown():
    assert interval(Estimate(2.0, 1.5, float("inf"))) == "2 (1.5 to not reached)"
    assert interval(Estimate(300.0, float("nan"), float("nan"))) == "300 (no interval)"
    assert interval(Estimate(*[float("inf")] * 3)) == "not reached"


ADAPTIVE = config("adaptive", {"min": 5, "max": 20}, max_steps=40, models=["Qwen/Qwen3-32B", "scripted/fragile"])


def to_its_end(folder, hazard):
    """Look by look, as ``run`` and ``submit`` do."""
    phase, results, rng = build_phase(ADAPTIVE), Results(folder), np.random.default_rng(11)
    results.create()
    write_record(results.plans / "plan.json", Plan(name="adaptive", runs=120, config=ADAPTIVE))
    while (state := look(phase, results)).open:
        for spec in state.asked:
            if results.outcome(spec.run_id) is None:
                write_run(results, spec, hazard(spec.parameters), rng)
    return state


def test_an_adaptive_phase_shows_its_looks_and_keeps_the_contrasts_even(tmp_path):
    def hazard(parameters):
        strong = "fragile" in parameters["agent"]["model"]["name"] and parameters["pe_induction"]["p_shock"]
        return 0.4 if strong else 0.02

    state = to_its_end(tmp_path, hazard)
    (section,) = [one for one in build_sections(*studied(tmp_path)) if one.key == "primary"]
    tables = {block.title: block for block in section.blocks if isinstance(block, Table)}
    rows = {(row[0], row[1]): row[2:] for row in tables["Adaptive replications"].rows}
    assert len(rows) == 4
    for path in state.paths:
        decision, seeds, looks, effect, bound = rows[show(path.pair.model), path.pair.dose]
        assert (seeds, looks) == (path.blocks, len(path.means))
        if path.pair.model == "scripted/fragile":
            assert (decision, path.verdict) == ("shortens survival", "shorter")
            assert effect.lower < effect.value < effect.upper < 0 < bound
            assert seeds < 20
    assert f"{len(state.asked):,} of at most 120 runs asked for" in said(section.blocks)
    assert tables["Main contrast (exploratory)"].rows[0][2] == 2 * 3 * 5, "its first seeds, whatever was found later"
    keys = [figure.key for figure in figures_of([section])]
    assert {"adaptive-qwen-qwen3-32b", "adaptive-scripted-fragile"} <= set(keys)


def test_an_adaptive_phase_before_its_first_look(tmp_path):
    write_results(tmp_path, ADAPTIVE | {"experiment": {"name": "adaptive", "replications": 2}}, no_effect)
    write_record(Results(tmp_path).plans / "plan.json", Plan(name="adaptive", runs=120, config=ADAPTIVE))
    study, _ = studied(tmp_path)
    assert study.pending == 6 * 3
    assert {row[2] for row in tables_of(tmp_path)["Adaptive replications"].rows} == {"open"}
    assert "Looks at each dose" in written(tmp_path)
