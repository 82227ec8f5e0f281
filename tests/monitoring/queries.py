"""What deploy/monitoring asks Prometheus: rules, dashboard, and their queries taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import promql_parser
import yaml

from tests.examples.processes import ROOT

MONITORING = ROOT / "deploy" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "wherry.json"
# What Grafana puts in their place.
VARIABLES = {"$namespace": "wherry", "$__rate_interval": "1m"}
OF_PROMETHEUS = {"up"}
LABELS_OF_TARGETS = {"instance", "job"}


@dataclass
class Parts:
    """The metrics of a query, and the labels that it asks for."""

    metrics: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


def rules() -> list[dict[str, Any]]:
    """The alert rules, in order."""
    text = (MONITORING / "rules.yml").read_text("utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def rule_tests() -> list[dict[str, Any]]:
    """The tests of the rules, in order."""
    return yaml.safe_load((MONITORING / "rules_test.yml").read_text("utf-8"))["tests"]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text("utf-8"))


def shown() -> Iterator[tuple[str, str]]:
    """Title and query of each line of the dashboard."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            yield panel["title"], query


def queries() -> list[tuple[str, str]]:
    """Name and query of all rules and of all lines of the dashboard."""
    alerts = [(rule["alert"], rule["expr"]) for rule in rules()]
    return alerts + [(f"{title}: {query}", query) for title, query in shown()]


def legends() -> set[str]:
    """The labels that legends of the dashboard and texts of the rules name."""
    legend = " ".join(
        target["legendFormat"] for panel in dashboard()["panels"] for target in panel["targets"]
    )
    texts = " ".join(" ".join(rule["annotations"].values()) for rule in rules())
    return {*re.findall(r"\{\{(\w+)\}\}", legend), *re.findall(r"\$labels\.(\w+)", texts)}


def take_apart(query: str) -> Parts:
    """Parse a query, and find what it needs; ValueError where it is none."""
    parts = Parts()

    def visit(expression: promql_parser.Expr) -> None:
        match expression:
            case promql_parser.VectorSelector():
                assert expression.name is not None, query
                parts.metrics.add(expression.name)
                parts.labels |= {one.name for one in expression.matchers.matchers}
            case promql_parser.MatrixSelector():
                visit(expression.vector_selector)
            case promql_parser.AggregateExpr() if expression.modifier is not None:
                parts.labels |= set(expression.modifier.labels)
            case _:
                pass

    assert promql_parser.walk(promql_parser.parse(query), visit)
    assert parts.metrics, query
    return parts
