# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what Python compiles out of zip archives, as it does by itself with all other code.

Ansible sends each module as an archive of sources, a hundred files that are the same ones every time. Python compiles each of them
twice, a third of what starting a module costs, and on an emulated machine more than a second.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
import zipimport
from types import CodeType

FOLDER = f"/var/tmp/zip-bytecode-{os.getuid()}-{sys.hexversion:x}"  # noqa: S108 - only where it is this account's own
compile_source = vars(zipimport)["_compile_source"]


def kept(path: str, source: bytes) -> CodeType:
    """The code of a file, compiled only where no process of this account has done so before."""
    name = f"{FOLDER}/{path.rpartition('/')[2]}-{_imp.source_hash(len(source), source).hex()}"
    try:
        if os.lstat(FOLDER).st_uid == os.getuid():
            with open(name, "rb") as file:
                found: CodeType = marshal.loads(file.read())  # noqa: S302 - written below
                return found
    except (OSError, EOFError, ValueError, TypeError):
        pass
    code: CodeType = compile_source(path, source)
    try:
        os.makedirs(FOLDER, 0o700, exist_ok=True)
        draft = f"{name}.{os.getpid()}"
        with open(draft, "wb") as file:
            file.write(marshal.dumps(code))
        os.rename(draft, name)
    except OSError:
        pass
    return code


vars(zipimport)["_compile_source"] = kept
