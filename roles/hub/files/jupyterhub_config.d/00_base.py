# Addresses, secrets, data base, cookies, pages, culling of idle servers.
# The collection's own file, written by each run: change the hub's description, or add a file of your own (40_mine.py).
from ananke_hub.config import base

base(c)  # noqa: F821 - JupyterHub provides c
