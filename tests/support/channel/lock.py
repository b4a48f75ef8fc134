"""Pin the wheels of the channel with their hashes."""

from __future__ import annotations

from channel.common import HERE, SUITES, run


def lock() -> None:
    """Resolve packages.in for every suite, and conda.in, to their newest versions."""
    common = [*("--quiet", "--upgrade", "--generate-hashes", "--no-build", "--no-header", "--no-annotate")]
    common += ["--python-platform", "x86_64-manylinux_2_28"]
    wanted = [(HERE / "packages.in", suite.lock, ["--python-version", suite.python]) for suite in SUITES.values()]
    wanted.append((HERE / "conda.in", HERE / "conda.lock.txt", ["--python-version", "3.11", "--no-deps"]))
    for source, target, options in wanted:
        run(["uv", "pip", "compile", *common, *options, source, "--output-file", target])
