# The hub's configuration is the files of jupyterhub_config.d, loaded in the order of their names.
from pathlib import Path

from ananke_hub.loader import load_or_exit

load_or_exit(get_config(), Path(__file__).resolve().parent / "jupyterhub_config.d")  # noqa: F821 - JupyterHub provides get_config
