"""A conda channel with an installer, made from Debian packages and wheels.

For machines that cannot reach conda-forge. See docs/developers/conda-channel.md.
"""
