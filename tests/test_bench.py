"""``scripts/bench`` runs each scenario and reports its figures; no figure is judged here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from scripts.benchmarks import __main__ as bench
from scripts.benchmarks import load
from tests.servers import ROOT, Server, available_servers, wait_until
