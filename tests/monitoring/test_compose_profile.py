"""The profile `monitoring` of the Compose file: its parts find each other and the workers."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.examples.processes import ROOT
from tests.monitoring.queries import MONITORING
from tests.test_compose import compose, dockerfile


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_monitoring_has_its_files_and_is_for_this_machine_alone(service: str):
    said = compose()["services"][service]
    for volume in said["volumes"]:
        source, target, *mode = volume.split(":")
        if source.startswith("./"):
            assert (ROOT / source).is_file(), source
            assert mode == ["ro"], "nobody edits them by way of the container"
        else:
            assert source in compose()["volumes"]
        assert target.startswith("/")
    [port] = said["ports"]
    assert port.startswith("127.0.0.1:")
    assert ":" in said["image"]


def test_prometheus_looks_for_the_workers_where_they_serve():
    file = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = file["scrape_configs"]
    [found_by] = job["dns_sd_configs"]
    [name] = found_by["names"]
    served = compose()["services"][name]["environment"]
    assert str(found_by["port"]) == served["WHERRY_HTTP_PORT"]
    assert served["WHERRY_HTTP_HOST"] == "0.0.0.0"
    [install] = [rest for name, rest in dockerfile()[0] if name == "RUN"]
    assert "metrics" in re.findall(r"'\.\[(.*?)\]'", install)[0].split(",")
    mounted = [one.split(":")[1] for one in compose()["services"]["prometheus"]["volumes"]]
    assert {f"/etc/prometheus/{rules}" for rules in file["rule_files"]} <= {*mounted}


def test_grafana_finds_its_source_and_its_dashboard():
    [source] = yaml.safe_load((MONITORING / "grafana" / "datasource.yml").read_text("utf-8"))[
        "datasources"
    ]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    [published] = compose()["services"][host]["ports"]
    assert published.endswith(f":{port}")
    [provider] = yaml.safe_load((MONITORING / "grafana" / "dashboards.yml").read_text("utf-8"))[
        "providers"
    ]
    grafana = compose()["services"]["grafana"]
    mounted = [one.split(":")[1] for one in grafana["volumes"]]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounted
    assert home.startswith(provider["options"]["path"] + "/")
