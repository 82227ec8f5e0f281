"""Dashboard and alert rules ask for what a real worker tells, and for all of it.

Grafana itself does not run here: the queries are parsed, and the dashboard's own rules are
checked as far as its file shows them. `test_prometheus` runs Prometheus where it is installed.
"""

from __future__ import annotations

import asyncio
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import Project
from tests.monitoring.asking import Answer, address_of, get
from tests.monitoring.queries import (
    LABELS_OF_TARGETS,
    MONITORING,
    OF_PROMETHEUS,
    dashboard,
    legends,
    queries,
    rule_tests,
    rules,
    shown,
    take_apart,
)
from wherry.monitoring.snapshot import METRICS


async def told(project: Project, *arguments: str) -> Answer:
    """The metrics of a worker that has just begun."""
    worker = await asyncio.to_thread(
        project.start_worker, "echo:app", "--http-port", "0", *arguments
    )
    try:
        answer = await get(address_of(worker), "/metrics")
        assert answer.status == 200
        return answer
    finally:
        await asyncio.to_thread(worker.kill)


@pytest.mark.limit_s(60)
async def test_each_query_asks_for_metrics_and_labels_that_there_are(
    redis_url: str, tmp_path: Path
):
    answer = await told(Project(tmp_path, redis_url))
    labels: dict[str, set[str]] = {}
    for one in answer.samples():
        labels.setdefault(one.name, set()).update(one.labels)
    assert len(queries()) > len(rules())
    for name, query in queries():
        parts = take_apart(query)
        assert parts.metrics <= labels.keys() | OF_PROMETHEUS, name
        for metric in parts.metrics - OF_PROMETHEUS:
            assert parts.labels <= labels[metric] | LABELS_OF_TARGETS, (name, metric)


async def test_legends_name_labels_that_there_are():
    # `worker` is there where one port speaks for several; without it a legend stays empty there.
    known = LABELS_OF_TARGETS | {"namespace", "worker", "outcome"}
    assert legends() <= known


def test_dashboard_shows_every_metric():
    asked = {name for _, query in shown() for name in take_apart(query).metrics}
    ours = {re.sub(r"_(bucket|count|sum)$", "", one) for one in asked}
    assert ours >= {f"wherry_{name}" for name in METRICS}


def test_panels_have_places_and_ids_of_their_own():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["type"] in ("stat", "timeseries")
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_everything_of_the_dashboard_asks_the_provisioned_source():
    file = yaml.safe_load((MONITORING / "grafana" / "datasource.yml").read_text("utf-8"))
    [source] = file["datasources"]
    chosen, namespace = dashboard()["templating"]["list"]
    assert (chosen["name"], chosen["type"], chosen["query"]) == (
        "datasource",
        "datasource",
        source["type"],
    )
    assert chosen["current"] == {"text": source["name"], "value": source["uid"]}
    asking = [namespace, *dashboard()["panels"]]
    asking += [target for panel in dashboard()["panels"] for target in panel["targets"]]
    assert {(one["datasource"]["type"], one["datasource"]["uid"]) for one in asking} == {
        (source["type"], "${datasource}")
    }
    asked = re.fullmatch(r"label_values\(wherry_(\w+), namespace\)", namespace["definition"])
    assert asked is not None
    assert asked[1] in METRICS
    assert namespace["query"]["query"] == namespace["definition"]
    assert all('namespace="wherry"' in query for _, query in shown())


def test_alerts_have_names_severities_and_texts_of_their_own():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert re.fullmatch(r"Wherry([A-Z][a-z]+)+", rule["alert"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_each_alert_is_tested_both_ways():
    asked = [one for test in rule_tests() for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {one["alertname"] for one in asked if one.get("exp_alerts")} == names
    assert {one["alertname"] for one in asked if not one.get("exp_alerts")} == names


@pytest.mark.parametrize("query", ["sum(wherry_ready", "rate(wherry_ready)", "sum by wherry_ready"])
def test_parser_notices_mistakes(query: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the texts are the parser's
        take_apart(query)
