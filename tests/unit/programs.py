# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that roles put on machines, as modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from description_cases import ROOT


def load(path: str) -> ModuleType:
    """The program at this path, below the folder of roles."""
    file = ROOT / "roles" / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
