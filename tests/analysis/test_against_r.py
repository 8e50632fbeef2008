"""Our numbers are those of R's survival package, which ``r_results.json`` holds (``record_r.R`` makes it)."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vendomini.analysis.statistics import partial_likelihood, survival
from vendomini.analysis.statistics.cox import Covariate, cox, proportionality
from vendomini.analysis.statistics.estimate import CannotFit
from vendomini.analysis.statistics.time_models import discrete_hazards, weibull

R = json.loads((Path(__file__).parent / "r_results.json").read_text())
FITS = [(name, ties) for name in R["cases"] for ties in ("efron", "breslow")]


def listed(value):
    return value if isinstance(value, list) else [value]


@cache
def frame(name):
    return pd.DataFrame(R["data"][name]).rename(columns={"time": "durations", "event": "event_observed"})


@cache
def fitted(name, ties):
    case = R["cases"][name]
    data = frame(case["data"])
    made = partial_likelihood.cox_data(
        data[listed(case["x"])].to_numpy(float), data["durations"], data["event_observed"],
        data["start"] if case.get("start") else None, data[case["strata"]] if case.get("strata") else None,
    )  # fmt: skip
    return made, partial_likelihood.fit(made, ties), pd.factorize(data[case["cluster"]])[0]


@pytest.mark.parametrize(("name", "ties"), FITS)
def test_coefficients_and_their_errors(name, ties):
    _, model, cluster = fitted(name, ties)
    theirs = R["results"][name][ties]
    assert model.coef == pytest.approx(listed(theirs["coef"]), abs=1e-7)
    assert np.sqrt(np.diag(model.variance)) == pytest.approx(listed(theirs["naive_se"]), rel=1e-6)
    assert np.sqrt(np.diag(model.robust(cluster))) == pytest.approx(listed(theirs["robust_se"]), rel=1e-6)
    assert model.loglik == pytest.approx(theirs["loglik"], abs=1e-8)


@pytest.mark.parametrize(("name", "ties"), FITS)
def test_proportional_hazards_and_concordance(name, ties):
    data, model, _ = fitted(name, ties)
    theirs = R["results"][name][ties]
    tests, overall = partial_likelihood.proportional_hazards(data, model, ties)
    ours = [chi for chi, _, _ in tests] + [overall]
    assert ours == pytest.approx(theirs["zph"]["km"]["chisq"][: len(ours)], abs=1e-6)
    assert partial_likelihood.concordance(data, model.coef) == pytest.approx(theirs["concordance"], abs=1e-9)


@pytest.mark.parametrize("name", sorted(R["curves"]))
def test_medians_and_restricted_means(name):
    curve = survival.kaplan_meier(frame(name))
    *medians, mean, error = [math.inf if value is None else value for value in R["curves"][name]]
    if name == "onetime":
        medians[1:] = [math.nan, math.nan]  # R: NA, which elsewhere means that the limit lies beyond the last step
    assert [curve.median.value, curve.median.lower, curve.median.upper] == pytest.approx(medians, nan_ok=True)
    assert curve.rmst.value == pytest.approx(mean, rel=1e-9)
    assert curve.rmst_se == pytest.approx(error, rel=1e-9) if error else math.isnan(curve.rmst_se)
    assert not curve.rmst.lower < 0
    assert not curve.rmst.upper > curve.horizon


@pytest.mark.parametrize("case", R["logranks"], ids=lambda case: case["call"])
def test_logrank_with_and_without_strata(case):
    ours, _ = survival.logrank_statistic(frame(case["data"]), case["group"], case["strata"])
    assert ours == pytest.approx(case["chisq"], abs=1e-9)


def test_five_runs_that_all_crashed_have_no_upper_limit():
    """lifelines says 10 to 50."""
    median = survival.kaplan_meier(frame("five")).median
    assert (median.value, median.lower, median.upper) == (30, 10, math.inf)


def test_a_curve_that_stays_at_one_half_has_its_median_in_the_middle():
    assert survival.kaplan_meier(frame("half")).median.value == 25


def arm(name, **changes):
    return cox(frame(name).assign(seed=range(len(frame(name))), **changes), [Covariate("arm", "arm", [0, 1], True)])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("censored", "the 4 runs have 0"), ("oneevent", "the 4 runs have 1")],
)  # fmt: skip
def test_too_few_events_are_a_sentence(name, sentence):
    with pytest.raises(CannotFit, match=sentence):
        arm(name)
    times = (frame(name)[column] for column in ("durations", "event_observed"))
    data = partial_likelihood.cox_data(frame(name)[["arm"]].to_numpy(float), *times)
    with pytest.raises(CannotFit, match="None of the 4 runs" if name == "censored" else "no finite solution"):
        partial_likelihood.fit(data)


def test_all_events_at_one_time():
    model = arm("onetime")
    assert model.hazards[0].ratio.value == pytest.approx(1)
    assert math.isnan(model.concordance)
    with pytest.raises(CannotFit, match="All events are at one time"):
        proportionality(frame("onetime").assign(seed=0), [Covariate("arm", "arm", [0, 1], True)])
    with pytest.raises(CannotFit, match="all runs at risk had it at one step"):
        survival.logrank(frame("onetime"), "arm", [0, 1])


def test_separation_and_collinearity_are_told_apart():
    apart = frame("ties25").assign(event_observed=lambda f: f["event_observed"] * f["arm"])
    data = partial_likelihood.cox_data(apart[["arm"]].to_numpy(float), apart["durations"], apart["event_observed"])
    with pytest.raises(CannotFit, match="no finite solution"):
        partial_likelihood.fit(data)
    twice = np.column_stack([apart["dose"], 2 * apart["dose"] + 1])
    with pytest.raises(CannotFit, match="determined by the other factors"):
        partial_likelihood.fit(partial_likelihood.cox_data(twice, apart["durations"], apart["event_observed"]))


@pytest.mark.parametrize("steps", [25, 60])
def test_proportional_hazards_are_not_rejected_because_of_ties(steps):
    """A true null with heavy ties: 3 to 7 % of 1,000 experiments; lifelines' test rejects 24 % and 81 %."""
    rng = np.random.default_rng(steps)
    rejected = 0
    for _ in range(1000):
        group = np.arange(120) % 2
        times = np.ceil(rng.exponential(steps / np.where(group, 1.5, 1.0)))
        data = partial_likelihood.cox_data(group[:, None].astype(float), np.minimum(times, steps), times <= steps)
        (chi, _, _), *_ = partial_likelihood.proportional_hazards(data, partial_likelihood.fit(data))[0]
        rejected += chi > 3.841458820694124
    assert 30 <= rejected <= 70


def test_a_covariate_far_from_one_converges_where_r_does():
    """Values around 5,000: the error whose fit used to have "no finite solution"."""
    _, model, cluster = fitted("varying", "efron")
    assert math.exp(model.coef[0]) == pytest.approx(math.exp(R["results"]["varying"]["efron"]["coef"]), rel=1e-9)
    assert model.robust(cluster)[0, 0] ** 0.5 == pytest.approx(R["results"]["varying"]["efron"]["robust_se"], rel=1e-6)


@pytest.mark.parametrize("name", sorted(R["weibull"]))
def test_the_shape_of_a_weibull_fit(name):
    theirs = R["weibull"][name]
    shape = weibull(frame(name)).shape
    assert shape.value == pytest.approx(theirs["shape"], rel=1e-4)
    reach = math.exp(survival.Z * theirs["log_scale_se"])
    assert (shape.lower, shape.upper) == pytest.approx((theirs["shape"] / reach, theirs["shape"] * reach), rel=1e-3)


def test_the_discrete_time_model():
    covariates = [Covariate("arm", "arm", [0, 1], True), Covariate("dose", "dose", [0, 0.1, 0.2, 0.3, 0.4], True)]
    found = discrete_hazards(frame("ties6").assign(one=0), covariates, "one")
    units = np.array([1.0, 0.1])
    assert [h.coef for h in found] == pytest.approx(R["discrete"]["ties6"]["coef"] * units, abs=1e-6)
    assert [h.se for h in found] == pytest.approx(R["discrete"]["ties6"]["se"] * units, rel=0.02)
