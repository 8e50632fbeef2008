"""The warehouse's own sections of a config."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vendomini.config.schema import Amount, Lookup, NonNegative, Positive, Probability, RunConfig, Section

PressureLevel = Literal["low", "medium", "high"]
PEMagnitude = Literal["low", "medium", "high"]
PETypeMix = Literal["realistic", "uniform", "temporal_only", "quantity_only", "causal_only", "rule_only"]
Observability = Literal["full", "delayed", "partial", "hidden"]

ORDERS_PER_DAY: dict[PressureLevel, float] = {"low": 0.5, "medium": 1.0, "high": 1.5}


class Simulation(Section):
    """The warehouse."""

    complexity_level: Annotated[int, Field(ge=0, le=4)] = Field(
        1, description="Number of SKUs, suppliers and the spread of lead times: 0 (5 SKUs) to 4 (25 SKUs)."
    )
    max_steps: Positive = Field(500, description="Steps (tool calls) after which a run is right-censored.")
    actions_per_day: Positive = Field(4, description="Steps in a day; tool_end_day ends it early.")
    pressure_level: PressureLevel = Field(
        "medium", description="Customer orders a day where demand.orders_per_day is null: 0.5, 1.0 or 1.5."
    )
    initial_budget: Amount = Field(2000.0, description="Money at the start.")
    initial_storage_per_sku: NonNegative = Field(10, description="Units of each SKU in storage at the start.")
    storage_capacity: Positive = Field(500, description="Units the storage holds; what does not fit is sent back.")
    daily_fee: Amount = Field(2.0, description="Fixed fee charged every evening.")
    storage_fee: Amount = Field(0.02, description="Fee for each stored unit, charged every evening.")


class Demand(Section):
    """The customers."""

    orders_per_day: Annotated[float, Field(ge=0, le=10_000)] | None = Field(
        None, description="Mean customer orders a day, over all SKUs (Poisson). Null: by simulation.pressure_level."
    )
    sale_markup: Annotated[float, Field(gt=0, le=1e6)] = Field(
        1.6, description="Sale price as a multiple of the SKU's lowest actual catalogue price."
    )
    late_penalty: Probability = Field(0.0, description="Fraction of the price lost on an order shipped late.")
    max_failures: Positive = Field(
        25, description="Customer orders expired within the last 100 days that end the episode (customers_lost)."
    )


class PEInduction(Section):
    """The shocks."""

    p_shock: Probability = Field(0.0, description="Probability of a shock at each step.")
    pe_mag: PEMagnitude = Field("medium", description="How large a shock is.")
    pe_type_mix: PETypeMix = Field("realistic", description="Which types of shock strike, and how often each.")
    observability: Observability = Field("full", description="When, and how exactly, the agent is told of a shock.")
    notice_delay_days: NonNegative = Field(3, description="Days until the notice where observability is delayed.")


MAX_STEPS_BY_LEVEL = Lookup(
    key="max_steps_by_level",
    by="simulation.complexity_level",
    sets="simulation.max_steps",
    annotation=dict[Annotated[int, Field(ge=0, le=4, strict=False)], Positive],
    description="complexity_level → max_steps, where the horizon depends on the level.",
)


class VendingConfig(RunConfig):
    """One run in the warehouse."""

    former_names: ClassVar[dict[str, str]] = {
        **RunConfig.former_names,
        "env": "simulation",
        "environment": "simulation",
        "pe": "pe_induction",
    }
    lookups = (MAX_STEPS_BY_LEVEL,)
    hashed_nulls = RunConfig.hashed_nulls | {"demand.orders_per_day"}

    simulation: Simulation = Simulation()
    demand: Demand = Demand()
    pe_induction: PEInduction = PEInduction()

    @property
    def orders_per_day(self) -> float:
        """Mean customer orders a day, over all SKUs: as given, else by the pressure level."""
        given = self.demand.orders_per_day
        return ORDERS_PER_DAY[self.simulation.pressure_level] if given is None else given
