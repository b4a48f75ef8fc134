"""Link the unpacked packages of PREFIX/pkgs into PREFIX with conda itself. Run by the installer."""

import sys
from pathlib import Path

from conda.base.context import context, reset_context
from conda.core.link import PrefixSetup, UnlinkLinkTransaction
from conda.core.package_cache_data import PackageCacheData
from conda.core.prefix_data import PrefixData
from conda.models.match_spec import MatchSpec
from conda.models.prefix_graph import PrefixGraph


def main() -> int:
    """Do it; an exception says why not."""
    prefix = sys.argv[1]
    reset_context()
    cache = PackageCacheData(str(Path(prefix, "pkgs")))
    cache.load()
    records = [record for record in cache.iter_records() if record.is_extracted]
    installed = {record.name for record in PrefixData(prefix).iter_records()}
    records = [record for record in PrefixGraph(records).graph if record.name not in installed]
    specs = [MatchSpec(name=record.name) for record in records if record.name in ("python", "conda", "pip")]
    assert context.root_prefix == prefix, context.root_prefix
    UnlinkLinkTransaction(PrefixSetup(prefix, (), tuple(records), (), tuple(specs), ())).execute()
    return 0


if __name__ == "__main__":
    sys.exit(main())
