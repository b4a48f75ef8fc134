"""Where this Python looks for modules.

Debian builds its own rules (dist-packages) into the interpreter; in a conda environment modules are
in site-packages. Virtual environments are left as they are: for them Debian's rules are the usual ones.
"""

import os
import site
import sys
from collections.abc import Iterable

if sys.prefix == sys.base_prefix and not hasattr(sys, "real_prefix"):

    def _getsitepackages(prefixes: "Iterable[str] | None" = None) -> "list[str]":
        tail = os.path.join("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
        return [os.path.join(prefix, tail) for prefix in dict.fromkeys(prefixes or site.PREFIXES)]

    site.getsitepackages = _getsitepackages
    for _folder in _getsitepackages():
        site.addsitedir(_folder)
    del _folder
