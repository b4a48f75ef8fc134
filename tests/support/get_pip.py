"""Gives ansible-test's virtual environments their pip from Python's own ensurepip.

ansible-test would download a bootstrap script from a host that not every network reaches.
"""

import ensurepip
import runpy
import sys

ensurepip.bootstrap()
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.argv = ["pip", "install", *wanted]
runpy.run_module("pip", run_name="__main__")
