"""`python -m test_lms --config FILE --state FOLDER` serves; `--check` only says whether the settings can be used."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import waitress

from .keys import load_or_create
from .settings import SettingsError, load
from .web import create_app

log = logging.getLogger("test_lms")


def main() -> int:
    parser = argparse.ArgumentParser(prog="test_lms", description="A test LMS. Not for production.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file with issuer, port, people and courses")
    parser.add_argument("--state", type=Path, help="folder of the signing key")
    parser.add_argument("--check", action="store_true", help="check the settings and stop")
    options = parser.parse_args()
    try:
        settings = load(options.config)
    except SettingsError as error:
        print(f"test_lms: {error}", file=sys.stderr)
        return 1
    if options.check:
        return 0
    if options.state is None:
        parser.error("--state is needed to serve")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    app = create_app(settings, load_or_create(options.state / "signing_key.pem"))
    log.warning("Test LMS %s, not for production: whoever reaches it can act as any of its people.", settings.issuer)
    waitress.serve(app, host="127.0.0.1", port=settings.port, threads=8, ident=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
