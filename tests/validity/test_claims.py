"""A short form of every claim in docs/validity.md: the same programs, on fewer seeds."""

from __future__ import annotations

import pytest

from benchmarks.validity.adaptive import adaptive
from benchmarks.validity.caused import as_it_was, episodes, verdict
from benchmarks.validity.claim import Claim
from benchmarks.validity.detection import detection, false_alarms
from benchmarks.validity.feasibility import feasibility
from benchmarks.validity.nulls import power
from benchmarks.validity.shocks import common_numbers, dose, observability, purity, realised_dose
from benchmarks.validity.survival import coverage


def _holds(claim: Claim) -> None:
    assert claim.rows
    assert claim.met, claim.markdown()


def test_the_task_can_be_done_and_not_by_doing_nothing() -> None:
    _holds(feasibility(range(3), most_steps=1000))


def test_each_breakdown_is_caught_by_its_own_detector() -> None:
    _holds(detection(range(3), range(1000, 1002), levels=[1]))


def test_health_is_not_taken_for_a_breakdown() -> None:
    _holds(false_alarms(range(4), levels=[0, 4]))


def test_each_shock_shows_as_its_own_error() -> None:
    _holds(purity(range(3)))


def test_errors_rise_with_the_dose() -> None:
    _holds(dose(range(8), levels=[0.0, 0.3, 1.0]))


def test_realised_doses_are_the_specified_ones() -> None:
    _holds(realised_dose(range(6)))


def test_being_told_helps() -> None:
    _holds(observability(range(24), mixes=["realistic"]))


def test_common_random_numbers() -> None:
    _holds(common_numbers(range(10)))


def test_effects_are_found_by_what_the_report_prints() -> None:
    pytest.importorskip("statsmodels", reason="needs the extra [report]")
    _holds(power(8))


def test_looks_err_seldom_and_save_much() -> None:
    pytest.importorskip("scipy", reason="needs the extra [report]")
    _holds(adaptive(1))


def test_agents_that_derail_without_a_shock_are_no_evidence() -> None:
    """They once were: their failed calls are errors, and the same calls set off the detectors."""
    pytest.importorskip("pandas", reason="needs the extra [report]")
    import pandas

    made = episodes(["reactive", "invalid", "spender"], (0.0,), range(5), 140)
    runs, logs = pandas.DataFrame([run for run, _ in made]), pandas.concat([log for _, log in made])
    assert runs["event_observed"].sum() == 10
    assert not verdict(0, runs, logs, 5, as_it_was)


def test_the_hazard_ratio_is_recovered() -> None:
    pytest.importorskip("lifelines", reason="needs the extra [report]")
    _holds(coverage(80))


def test_a_claim_that_does_not_hold_says_so() -> None:
    claim = Claim("name", "All is well.", ["a"], [[1.5]], ["a is not well", "b neither"])
    assert not claim.met
    assert "does NOT hold: a is not well; b neither" in claim.markdown()
