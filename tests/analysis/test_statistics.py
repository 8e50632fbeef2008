"""Curves are lifelines' own on published data; known effects are found, and absent ones are not."""

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from lifelines.datasets import load_leukemia, load_lung, load_rossi
from lifelines.statistics import pairwise_logrank_test
from lifelines.utils import restricted_mean_survival_time
from scipy.stats import chi2

from vendomini.analysis.statistics import competing, cox, paired, scaling, survival, time_models
from vendomini.analysis.statistics import time_varying_cox as varying
from vendomini.analysis.statistics.estimate import CannotFit, Estimate, holm
from vendomini.analysis.statistics.paired import paired_difference, paired_slope


def framed(data: pd.DataFrame, durations: str, event: str) -> pd.DataFrame:
    return data.rename(columns={durations: "durations", event: "event_observed"}).assign(seed=range(len(data)))


@pytest.fixture(scope="module")
def rossi():
    return framed(load_rossi(), "week", "arrest")


@pytest.fixture(scope="module")
def leukemia():
    return framed(load_leukemia(), "t", "status")


@pytest.fixture(scope="module")
def lung():
    return framed(load_lung(), "time", "status")


def simulated(rng, runs=120, seeds=10, ratio=1.0, frailty=0.0, horizon=500):
    """Two arms under common random numbers: exponential times to a crash, ``ratio`` the hazard ratio of arm 1."""
    arm = np.arange(runs) % 2
    seed = np.arange(runs) // 2 % seeds
    hazard = 1 / 300 * ratio**arm * np.exp(frailty * rng.standard_normal(seeds)[seed])
    times = np.ceil(rng.exponential(1 / hazard))
    return pd.DataFrame({
        "arm": np.where(arm == 1, "b", "a"), "dose": arm.astype(float), "seed": seed,
        "durations": np.minimum(times, horizon), "event_observed": times <= horizon,
    })  # fmt: skip


# ------------------------------------------------------------------------------------- published data


@pytest.mark.parametrize("name", ["rossi", "leukemia", "lung"])
def test_the_curve_is_lifelines_own(name, request):
    frame = request.getfixturevalue(name)
    curve = survival.kaplan_meier(frame)
    fitter = KaplanMeierFitter().fit(frame["durations"], frame["event_observed"])
    assert curve.survival == fitter.survival_function_.iloc[:, 0].tolist()
    assert curve.lower == fitter.confidence_interval_.iloc[:, 0].tolist()
    assert curve.upper == fitter.confidence_interval_.iloc[:, 1].tolist()
    assert (curve.n, curve.events) == (len(frame), frame["event_observed"].sum())


def test_restricted_mean_of_the_lung_data_is_the_published_one(lung):
    """R's survival package prints rmean 376.3, se 19.7 up to day 1022."""
    mean = survival.kaplan_meier(lung, horizon=1022).rmst
    assert mean.value == pytest.approx(376.3, abs=0.05)
    assert (mean.upper - mean.value) / survival.Z == pytest.approx(19.7, abs=0.05)


def test_restricted_mean_without_censoring_is_the_plain_mean():
    frame = pd.DataFrame({"durations": [1.0, 2.0, 4.0, 9.0], "event_observed": True})
    assert survival.kaplan_meier(frame).rmst.value == 4.0
    assert survival.kaplan_meier(frame, horizon=4.0).rmst.value == (1 + 2 + 4 + 4) / 4
    assert survival.kaplan_meier(frame, horizon=3.0).rmst.value == (1 + 2 + 3 + 3) / 4


def test_pairwise_logrank_is_lifelines_own_with_holm(lung):
    frame = lung.dropna(subset=["ph.ecog"])
    frame = frame[frame["ph.ecog"] < 3]
    ours = survival.pairwise_logrank(frame, "ph.ecog", [0.0, 1.0, 2.0])
    theirs = pairwise_logrank_test(frame["durations"], frame["ph.ecog"], frame["event_observed"])
    assert [test.p for test in ours] == pytest.approx(theirs.p_value, rel=1e-9)
    assert [test.p_adjusted for test in ours] == holm([test.p for test in ours])
    assert all(test.size.lower <= test.size.value <= test.size.upper for test in ours)


def test_incidence_without_ties_is_lifelines_own(rng):
    frame = pd.DataFrame({"durations": rng.permutation(200) + 1.0})
    frame["ending"] = rng.choice(["looping", "bankrupt", "none"], 200)
    frame.loc[frame["durations"].idxmax(), "ending"] = "none"
    frame["event_observed"] = frame["ending"] != "none"
    codes = frame["ending"].map({"none": 0, "looping": 1, "bankrupt": 2})
    for ours in competing.cumulative_incidence(frame):
        theirs = AalenJohansenFitter().fit(frame["durations"], codes, {"looping": 1, "bankrupt": 2}[ours.ending])
        expected = theirs.cumulative_density_.iloc[:, 0]
        assert ours.incidence == pytest.approx(expected.loc[ours.times].tolist(), abs=1e-12)
        low, high = sorted(theirs.confidence_interval_.iloc[-1])
        assert (ours.final.lower, ours.final.upper) == pytest.approx((low, high), abs=1e-9)


def test_incidences_and_survival_add_up_to_one_under_ties(rng):
    frame = simulated(rng).assign(ending=lambda f: np.where(f["seed"] % 3 == 0, "bankrupt", "looping"))
    total = sum(incidence.incidence[-1] for incidence in competing.cumulative_incidence(frame))
    assert total == pytest.approx(1 - survival.kaplan_meier(frame).survival[-1])


# -------------------------------------------------------------------------------------- known effects


def logrank_p(frame):
    return chi2.sf(survival.logrank_statistic(frame, "arm")[0], 1)


def cox_p(frame):
    return cox.cox(frame, [cox.Covariate("dose", "dose", [0.0, 1.0], numeric=True)]).hazards[0].p


@pytest.mark.parametrize("test", [logrank_p, cox_p])
def test_nothing_is_found_where_there_is_nothing(rng, test):
    """400 null experiments with common random numbers: a test is wrong in about 5 % of them (3 σ: 3.3 %)."""
    p_values = [test(simulated(rng, seeds=5)) for _ in range(400)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.083


def test_nothing_is_found_where_seeds_differ_but_arms_do_not(rng):
    """Seeds that are hard or easy for both arms: the clustered error knows, and stays at 5 %."""
    p_values = [
        cox.cox(simulated(rng, frailty=0.7), [cox.Covariate("arm", "arm", ["a", "b"], numeric=False)]).hazards[0].p
        for _ in range(200)
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.088


def test_independent_endings_show_no_association(rng):
    p_values = []
    for _ in range(200):
        frame = pd.DataFrame({"crash": rng.choice(["a", "b", "c"], 150), "pe": rng.choice(["x", "y"], 150)})
        p_values.append(competing.association(frame, "crash", "pe").test.p)
    assert np.mean(np.array(p_values) < 0.05) <= 0.083


def test_permutations_agree_with_the_exact_test(rng):
    from scipy.stats import fisher_exact

    frame = pd.DataFrame({"crash": ["a"] * 9 + ["b"] * 7, "pe": list("xxxxxxxyy") + list("xyyyyyy")})
    ours = competing.association(frame, "crash", "pe").test
    exact = fisher_exact(pd.crosstab(frame["crash"], frame["pe"])).pvalue
    assert "permutations" in ours.method
    assert ours.p == pytest.approx(exact, abs=0.02)


def test_a_known_hazard_ratio_is_covered_by_its_interval(rng):
    covered, found = 0, 0
    for _ in range(100):
        frame = simulated(rng, runs=400, ratio=2.0, seeds=10)
        hazard = cox.cox(frame, [cox.Covariate("dose", "p", [0.0, 1.0], numeric=True)]).hazards[0]
        covered += hazard.ratio.lower <= 2.0 <= hazard.ratio.upper
        found += hazard.p < 0.05
    assert covered >= 87
    assert found >= 95


def test_an_error_that_drives_the_hazard_is_found(rng):
    runs, steps = [], []
    for run in range(150):
        x = np.abs(np.cumsum(rng.normal(0, 0.1, 400)))
        hazard = 0.002 * np.exp(np.concatenate([np.zeros(20), x[:-20]]))  # of the error twenty steps before
        crash = np.flatnonzero(rng.random(400) < hazard)
        end = int(crash[0]) + 1 if crash.size else 400
        runs.append({"run": f"r{run}", "seed": run % 8, "durations": end, "event_observed": bool(crash.size)})
        steps.append(pd.DataFrame({"run": f"r{run}", "step": np.arange(end), "pe": x[:end]}))
    frame = pd.DataFrame(runs).assign(stratum=0)
    found = varying.varying_hazard(varying.intervals(pd.concat(steps), frame, "pe", 1, 20), 1, 20)
    truth = math.exp(found.sd)
    assert found.ratio.lower <= truth <= found.ratio.upper
    assert found.p < 0.01
    wider = varying.varying_hazard(varying.intervals(pd.concat(steps), frame, "pe", 5, 20), 5, 20)
    assert wider.ratio.value == pytest.approx(found.ratio.value, rel=0.1)


def test_intervals_look_back_by_the_lag_and_never_ahead():
    steps = pd.DataFrame({"run": "r", "step": range(1, 9), "pe": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]})
    runs = pd.DataFrame([{"run": "r", "seed": 0, "durations": 7, "event_observed": True}])
    table = varying.intervals(steps, runs, "pe", width=2, lag=4)
    assert table[["start", "stop", "event", "x"]].to_numpy().tolist() == [
        [0, 2, False, 0.0], [2, 4, False, 0.0], [4, 6, False, 0.0], [6, 7, True, 0.2]]  # fmt: skip
    assert (varying.lag_of(6, 20), varying.lag_of(1, 20)) == (24, 20)


def test_agents_that_no_shock_met_show_no_evidence(rng):
    """Error is 0 throughout: there is nothing that could foretell anything, however many runs crash."""
    runs = pd.DataFrame({"run": [f"r{i}" for i in range(40)], "seed": np.arange(40) % 8, "event_observed": True,
                         "durations": rng.integers(5, 60, 40), "stratum": 0})  # fmt: skip
    steps = pd.DataFrame({"run": np.repeat(runs["run"], 60), "step": np.tile(np.arange(60), 40), "pe": 0.0})
    with pytest.raises(CannotFit, match="No shock has caused an error"):
        varying.varying_hazard(varying.intervals(steps, runs, "pe", 1, 20), 1, 20)


# ------------------------------------------------------------------------------------- paired by seed


def paired_frame(rng, effect=0.0, seeds=5, spread=300.0):
    """Seeds differ by hundreds of steps, levels by little: pairing tells them apart."""
    base = rng.uniform(100, 100 + spread, seeds)
    rows = [{"seed": s, "dose": dose, "cell": cell, "durations": np.ceil(base[s] - effect * dose + rng.normal(0, 3)),
             "event_observed": True} for s in range(seeds) for dose in (0.0, 1.0) for cell in "abcd"]  # fmt: skip
    return pd.DataFrame(rows)


def test_pairing_by_seed_finds_what_seeds_hide(rng):
    frame = paired_frame(rng, effect=20.0)
    found = paired_difference(frame, "dose", [0.0, 1.0], ["cell"])
    unpaired = survival.logrank(frame, "dose", [0.0, 1.0])
    assert found.size.lower <= -20 <= found.size.upper
    assert found.p < 0.001
    assert (found.size.upper - found.size.lower) * 5 < unpaired.size.upper - unpaired.size.lower
    slope = paired_slope(frame, "dose", [0.0, 1.0], 0.5)
    assert slope.size.value == pytest.approx(found.size.value / 2)


def test_a_paired_contrast_without_pairs_is_a_sentence(rng):
    frame = paired_frame(rng)
    with pytest.raises(CannotFit, match="No two runs share a seed"):
        paired_difference(frame.assign(seed=range(len(frame))), "dose", [0.0, 1.0], ["cell"])
    with pytest.raises(CannotFit, match="needs 3 seeds"):
        paired_difference(frame[frame["seed"] < 2], "dose", [0.0, 1.0], ["cell"])
    with pytest.raises(CannotFit, match="as long at one level as at another"):
        paired_difference(frame.assign(durations=9.0), "dose", [0.0, 1.0], ["cell"])


def test_restricted_times_of_censored_runs_average_to_the_restricted_mean(lung):
    mean = paired.restricted_times(lung, 500.0).mean()
    assert mean == pytest.approx(survival.kaplan_meier(lung, horizon=500.0).rmst.value, rel=1e-3)


def test_restricted_times_are_the_jackknife_of_lifelines(rng):
    for _ in range(40):
        n, last = rng.integers(2, 12), rng.integers(2, 9)
        frame = pd.DataFrame({"durations": rng.integers(1, last, n) + 0.0, "event_observed": rng.random(n) < 0.6})

        def mean(rows, horizon=float(last)):
            fitted = KaplanMeierFitter().fit(rows["durations"], rows["event_observed"])
            return restricted_mean_survival_time(fitted, t=horizon)

        assert survival.kaplan_meier(frame, horizon=float(last)).rmst.value == pytest.approx(mean(frame))
        without = np.array([mean(frame.drop(index=row)) for row in frame.index])
        assert paired.restricted_times(frame, float(last)) == pytest.approx(n * mean(frame) - (n - 1) * without)


def test_a_slope_is_a_line_for_each_seed_over_the_levels_that_it_has(rng):
    frame = pd.DataFrame({"seed": np.repeat(np.arange(8), 12), "dose": np.tile([0.0, 0.1, 0.3, 0.6], 24)})
    frame["durations"], frame["event_observed"] = rng.integers(1, 99, len(frame)) + 0.0, True
    frame = frame[(frame["seed"] > 1) | (frame["dose"] < 0.2)].drop(index=[30, 34, 38])
    lines = []
    for _, rows in frame.groupby("seed"):
        means = rows.groupby("dose")["durations"].mean()
        lines.append(np.polyfit(means.index / 0.1, means, 1)[0])
    found = paired_slope(frame, "dose", [0.0, 0.1, 0.3, 0.6], 0.1)
    assert found.size.value == pytest.approx(np.mean(lines))


def test_a_hundred_thousand_runs_in_progress_need_little_time_and_memory(rng):
    """Matrices of runs by event times, or of runs by runs, would take gigabytes."""
    n = 100_000
    frame = pd.DataFrame({"durations": rng.integers(1, 5000, n) + 0.0, "event_observed": rng.random(n) < 0.6,
                          "seed": rng.integers(0, 9000, n), "dose": rng.integers(0, 10, n) / 10})  # fmt: skip
    tracemalloc.start()
    assert paired.restricted_times(frame, 4000.0).mean() == pytest.approx(
        survival.kaplan_meier(frame, horizon=4000.0).rmst.value, rel=1e-3
    )
    for strata in (None, "seed"):
        assert survival.logrank_statistic(frame, "dose", strata)[1] == 9
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20


# -------------------------------------------------------------------------------------- models of time


def test_reliability_over_replications_by_hand():
    frame = pd.DataFrame({"cell": ["a", "a", "a", "b", "b", "b"], "durations": [5, 9, 9, 9, 9, 9],
                          "event_observed": [True, False, False, False, False, False]})  # fmt: skip
    found = time_models.reliability(frame, ["cell"], points=10)
    assert found.shares[1][-1] == pytest.approx((2 / 3 + 1) / 2)
    assert found.shares[2][-1] == pytest.approx((1 / 3 + 1) / 2)
    assert found.shares[3][-1] == pytest.approx(0.5)
    assert found.shares[3][0] == 1


def test_a_known_scaling_law_is_recovered():
    sizes = {f"m{size}": size * 1e9 for size in (1, 8, 32, 70)}
    curves = [curve_of(name, 10 * size**0.5) for name, size in sizes.items()]
    law = scaling.scaling_law(curves, sizes)
    assert law.exponent.value == pytest.approx(0.5)
    assert law.exponent.lower <= 0.5 <= law.exponent.upper
    assert law.r_squared == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-32B", 32e9), ("meta-llama/Llama-3.3-70B-Instruct", 70e9), ("openai/gpt-oss-20b", 20e9),
        ("Qwen/Qwen2.5-72B-Instruct", 72e9), ("allenai/OLMo-2-1124-13B-Instruct", 13e9),
        ("EleutherAI/pythia-160m", 160e6),
        ("deepseek-ai/deepseek-llm-7b-chat", 7e9), ("Qwen/Qwen2.5-0.5B", 0.5e9), ("scripted/fragile", None),
        ("mistralai/Mixtral-8x7B", None),
    ],
)  # fmt: skip
def test_sizes_in_names(name, expected):
    assert scaling.parameters_of(name) == expected


def curve_of(label, median, n=20):
    unknown = Estimate(median, median * 0.8, median * 1.2)
    return survival.Curve(label, n, n, [], [], [], [], [], unknown, unknown, 1.0, 100.0)


# ------------------------------------------------------------------------------- what can't be fitted


def test_too_few_events_are_named(rng):
    frame = simulated(rng).assign(event_observed=False)
    frame.loc[:1, "event_observed"] = True
    with pytest.raises(CannotFit, match=r"needs at least 5 events, and the 120 runs have 2\."):
        cox.cox(frame, [cox.Covariate("dose", "dose", [0.0, 1.0], numeric=True)])


def test_no_event_at_all_is_named(rng):
    frame = simulated(rng).assign(event_observed=False, ending="survived")
    with pytest.raises(CannotFit, match="None of the 120 runs has had an event"):
        survival.logrank(frame, "arm", ["a", "b"])
    with pytest.raises(CannotFit, match="no ending to compare"):
        competing.cumulative_incidence(frame)
    assert survival.kaplan_meier(frame).median.value == math.inf


def test_a_median_at_the_only_step_with_events_has_no_interval():
    median = survival.kaplan_meier(pd.DataFrame({"durations": [9.0] * 6, "event_observed": True})).median
    assert median.value == 9
    assert math.isnan(median.lower)
    assert math.isnan(median.upper)


def test_separation_in_discrete_time_is_one_sentence_and_no_warning(rng, recwarn):
    frame = pd.DataFrame({"dose": np.repeat([0.0, 1.0], 20), "seed": np.tile(range(5), 8),
                          "durations": np.where(np.repeat([0.0, 1.0], 20) > 0, np.tile([8.0, 9.0], 20), 60.0),
                          "event_observed": np.repeat([False, True], 20)})  # fmt: skip
    with pytest.raises(CannotFit, match="no finite solution"):
        time_models.discrete_hazards(frame, [cox.Covariate("dose", "dose", [0.0, 1.0], numeric=True)])
    assert not recwarn.list


def test_one_group_is_named(rng):
    frame = simulated(rng)
    with pytest.raises(CannotFit, match="Only one level of arm has runs"):
        survival.logrank(frame[frame["arm"] == "a"], "arm", ["a", "b"])
    with pytest.raises(CannotFit, match="No factor varies"):
        cox.cox(frame, [cox.Covariate("arm", "arm", ["a"], numeric=False)])


def test_a_level_without_events_is_left_out_by_name(rng):
    frame = pd.concat([simulated(rng), simulated(rng).assign(arm="c", event_observed=False)], ignore_index=True)
    model = cox.cox(frame, [cox.Covariate("arm", "arm", ["a", "b", "c"], numeric=False)])
    assert model.n == 120
    assert any("None of the 120 runs with arm = c had an event" in note for note in model.notes)


def test_separation_is_named(rng):
    frame = simulated(rng, horizon=10_000)
    frame["dose"] = frame["durations"].rank() * 10
    with pytest.raises(CannotFit, match="no finite solution"):
        cox.cox(frame, [cox.Covariate("dose", "dose", [0.0, 1.0], numeric=True)])


def test_one_seed_gives_no_clustered_error(rng):
    model = cox.cox(simulated(rng, seeds=1), [cox.Covariate("dose", "dose", [0.0, 1.0], numeric=True)])
    assert "by run" in model.method
    assert any("share one seed" in note for note in model.notes)


def test_few_models_make_no_law():
    with pytest.raises(CannotFit, match=r"needs 3 models of different sizes with a median, and there are 2"):
        scaling.scaling_law([curve_of("m1", 10), curve_of("m2", 20), curve_of("m3", math.inf)],
                            {"m1": 1e9, "m2": 2e9, "m3": 3e9})  # fmt: skip


def test_the_common_horizon_is_where_every_curve_is_known():
    died = pd.DataFrame({"durations": [3.0, 9.0], "event_observed": True})
    alive = pd.DataFrame({"durations": [4.0, 20.0], "event_observed": [True, False]})
    tied = pd.DataFrame({"durations": [7.0, 7.0], "event_observed": [True, False]})
    assert survival.common_horizon([died, alive]) == 20
    assert survival.common_horizon([died, tied, alive]) == 7
    assert survival.common_horizon([died]) == 9


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.fixture
def rng():
    return np.random.default_rng(2026)
