# SPDX-License-Identifier: GPL-3.0-or-later
"""A script in python3 uses all packages and draws; JupyterLab has their other halves, in the same versions."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import checks

PYTHON = Path(sys.prefix).parent / "python3/bin/python"
HALVES = ("ipympl", "jupyterlab_widgets", "anywidget", "plotly")
SCRIPT = f"""
import importlib.metadata, json
import ipympl, matplotlib, numpy, pandas
import matplotlib.pyplot as plt
import plotly.express as px
import plotly.graph_objects as go
import seaborn

table = pandas.DataFrame({{"x": numpy.arange(10), "y": numpy.arange(10) ** 2}})
matplotlib.use("agg")
seaborn.lineplot(table, x="x", y="y")
plt.savefig("drawn.png")
matplotlib.use("module://ipympl.backend_nbagg")
assert type(plt.figure().canvas).__module__ == "ipympl.backend_nbagg"
assert px.line(table, x="x", y="y").to_json()
assert go.FigureWidget(px.line(table, x="x", y="y"))._repr_mimebundle_()
print(json.dumps({{name: importlib.metadata.version(name) for name in {HALVES}}}))
"""

Path("script.py").write_text(SCRIPT)
done = subprocess.run([PYTHON, "script.py"], stdout=subprocess.PIPE, text=True, check=True)
assert Path("drawn.png").read_bytes().startswith(b"\x89PNG"), "nothing was drawn"
theirs = json.loads(done.stdout.splitlines()[-1])
ours = {name: importlib.metadata.version(name) for name in HALVES}
assert ours == theirs, f"JupyterLab has {ours}, notebooks have {theirs}"
with checks.server() as server:
    server.labextensions("jupyter-matplotlib", "@jupyter-widgets/jupyterlab-manager", "anywidget", "jupyterlab-plotly")
