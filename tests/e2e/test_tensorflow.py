"""TensorFlow in a running hub: an environment of its own that comes, is used in a student's lab, and goes."""

from __future__ import annotations

from acting import act, succeed
from browsing import Person
from conftest import Visit
from facts import Hub

from testbed.waiting import until

ENVIRONMENT = "/opt/conda/envs/tensorflow"
KERNEL = "/opt/conda/envs/jhub/share/jupyter/kernels/tensorflow"
CODE = """
import os, sys
import tensorflow as tf
print((tf.constant([1, 2]) + tf.constant([3, 4])).numpy().tolist(), sys.prefix, os.environ["CONDA_PREFIX"])
"""


def test_a_student_adds_two_tensors(hub: Hub, students: list[Person], visit: Visit) -> None:
    """The server runs all the time. A second run of the module starts one process, which reads the records."""
    lab = visit(students[1]).enter(hub)
    packages = hub.exec("ls /opt/conda/envs/*/lib/python3.*/site-packages").stdout
    refused = act(hub, "hub_features", features=["tensorflow:gpu"])["msg"]
    assert "tensorflow:gpu needs GPUs, but there is no /dev/nvidiactl" in refused

    done = succeed(hub, "hub_features", features=["tensorflow"])
    assert (done["added"], done["applies"], done["problems"]) == (["tensorflow"], "reload", [])
    one = done["features"][0]
    assert one["report"] == {"version": one["version"], "cuda": "", "devices": ["CPU:0"]}
    told = succeed(hub, "hub_info", gather=["features", "kernels"])
    assert told["features"] == [{key: one[key] for key in ("name", "title", "variant", "report")}]
    assert told["problems"] == []
    again = succeed(hub, "hub_features", features=["tensorflow"])
    assert (again["changed"], len(again["commands"])) == (False, 1)

    until(lambda: lab.offered().get("tensorflow") == "TensorFlow", 120, "JupyterLab offers the kernel")
    # TensorFlow also says what it thinks of the processor
    said = lab.kernel("tensorflow").run(CODE, 180).splitlines()
    assert f"[4, 6] {ENVIRONMENT} {ENVIRONMENT}" in said
    lab.close_kernels()

    assert succeed(hub, "hub_features", features=[])["removed"] == ["tensorflow"]
    assert "tensorflow" not in lab.offered()
    hub.exec(f'test ! -e {ENVIRONMENT} && test ! -e {KERNEL} && test -z "$(ls /opt/install/features)"')
    assert hub.exec("ls /opt/conda/envs/*/lib/python3.*/site-packages").stdout == packages
    assert not succeed(hub, "hub_features", features=[])["changed"]
