# How hub users' servers run: isolation, limits, environment, queue.
# The collection's own file, written by each run: change the hub's description, or add a file of your own (40_mine.py).
from ananke_hub.config import servers

servers(c)  # noqa: F821 - JupyterHub provides c
