"""Tables, survival statistics, the report, the trace viewer and exports."""

from vendomini.analysis.report.build import write_report
from vendomini.analysis.tables.aggregate import Tables, aggregate

__all__ = ["Tables", "aggregate", "write_report"]
