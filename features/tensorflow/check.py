# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel adds two tensors, and reports what TensorFlow sees. Where the hub has NVIDIA's GPUs, TensorFlow with CUDA has to see one."""

import json
from pathlib import Path

import checks

CODE = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow as tf

def shown(device):
    details = tf.config.experimental.get_device_details(device)
    return " ".join([device.name.removeprefix("/physical_device:"), *filter(None, [details.get("device_name")])])

print(json.dumps({
    "sum": (tf.constant([1, 2]) + tf.constant([3, 4])).numpy().tolist(),
    "version": tf.__version__,
    "cuda": tf.sysconfig.get_build_info().get("cuda_version", "") if tf.test.is_built_with_cuda() else "",
    "devices": [shown(device) for device in tf.config.list_physical_devices()],
}))
"""

report = json.loads(checks.cell("tensorflow", CODE))
assert report.pop("sum") == [4, 6], report
gpus = [device for device in report["devices"] if device.startswith("GPU")]
assert gpus or not report["cuda"] or not Path("/dev/nvidiactl").exists(), (
    f"the hub has NVIDIA devices, but TensorFlow sees {report['devices']} alone: compare the driver's version (nvidia-smi) with what CUDA"
    f" {report['cuda']} needs, or choose tensorflow:cpu"
)
print(json.dumps(report))
