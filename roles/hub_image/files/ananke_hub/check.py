# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a hub's whole configuration: ``python -m ananke_hub.check [--description FILE]``.

Loads the description (``-``: from standard input), our numbered files and the admin's own, and has JupyterHub check
every value's type. Nothing is started and none of our code writes anything. Exit code 0 and one line, or 1 and one
line that says what is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import description
from .description import DescriptionError
from .init import zone_file
from .loader import ConfigurationError, load
from .paths import DESCRIPTION_VARIABLE, Paths


def _reason(error: Exception) -> str:
    """The error in one line, without the object that traitlets was made to check it with."""
    return re.sub(r" of (a|<[^>]*>) ?(HasTraits)? instance", "", " ".join(str(error).split()))


def _classes(config: Any) -> dict[str, type]:
    """The configurable classes that play a part in this hub, by name."""
    from jupyterhub.app import JupyterHub
    from jupyterhub.auth import Authenticator
    from jupyterhub.crypto import CryptKeeper
    from jupyterhub.proxy import ConfigurableHTTPProxy
    from jupyterhub.spawner import Spawner
    from ltiauthenticator.lti13.validator import LTI13LaunchValidator
    from traitlets import HasTraits, TraitError
    from traitlets.config import Configurable

    seeds: list[type] = [JupyterHub, Authenticator, CryptKeeper, ConfigurableHTTPProxy, Spawner, LTI13LaunchValidator]
    traits = JupyterHub.class_traits()
    for name in ("authenticator_class", "spawner_class", "proxy_class"):
        if name in config.JupyterHub:
            try:
                seeds.append(traits[name]._validate(HasTraits(), config.JupyterHub[name]))
            except (TraitError, ImportError) as error:
                raise ConfigurationError(f"c.JupyterHub.{name}: {_reason(error)}") from None
    return {
        base.__name__: base
        for seed in seeds
        for base in seed.__mro__
        if issubclass(base, Configurable) and base is not Configurable
    }


def check_traits(config: Any) -> None:
    """Have every configured value checked by the trait that it is for. Raises ConfigurationError."""
    from traitlets import HasTraits
    from traitlets.config import LazyConfigValue

    known = _classes(config)
    for class_name, values in config.items():
        cls = known.get(class_name)
        if cls is None:
            continue  # of a service or extension that is not ours to know
        traits: dict[str, Any] = cls.class_traits(config=True)  # type: ignore[attr-defined]
        for name, value in values.items():
            if isinstance(value, LazyConfigValue):
                continue
            if name not in traits:
                close = difflib.get_close_matches(name, traits, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigurationError(f"c.{class_name}.{name}: there is no such setting{hint}")
            try:
                traits[name]._validate(HasTraits(), value)
            except Exception as error:  # some of JupyterHub's own traits fail by other errors than TraitError
                raise ConfigurationError(f"c.{class_name}.{name}: {value!r} is not allowed: {_reason(error)}") from None


@contextlib.contextmanager
def _description_file(source: str | None) -> Iterator[Path | None]:
    """The file to read the description from: as named, or what standard input holds."""
    if source != "-":
        yield Path(source) if source else None
        return
    text = sys.stdin.buffer.read()
    description.parse_text(text, "standard input")
    with tempfile.NamedTemporaryFile(prefix="ananke-check-", suffix=".json") as file:
        file.write(text)
        file.flush()
        yield Path(file.name)


def check(source: str | None) -> str:
    """Check the configuration. Returns a line that says what was checked. Raises ConfigurationError or
    DescriptionError.
    """
    from traitlets.config import Config

    with _description_file(source) as path:
        if path is not None:
            os.environ[DESCRIPTION_VARIABLE] = str(path)
        paths = Paths.current()
        hub = description.load(paths.description)
        zone_file(paths, hub.time_zone)
        config = Config()
        # what an admin's file prints does not belong to the one line
        with contextlib.redirect_stdout(io.StringIO()):
            found = load(config, paths.config_d)
        check_traits(config)
    return f"{hub.name}: the configuration is good ({', '.join(file.name for file in found)})"


def main(arguments: list[str] | None = None) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(prog="python -m ananke_hub.check", description=__doc__.split("\n\n")[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--description", metavar="FILE", help="a description other than the container's; -: standard input"
    )
    logging.disable(logging.CRITICAL)
    try:
        print(check(parser.parse_args(arguments).description))
    except (ConfigurationError, DescriptionError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
