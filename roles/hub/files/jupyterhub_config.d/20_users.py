# Who may enter, who is a hub admin, where users' names are kept.
# The collection's own file, written by each run: change the hub's description, or add a file of your own (40_mine.py).
from ananke_hub.config import users

users(c)  # noqa: F821 - JupyterHub provides c
