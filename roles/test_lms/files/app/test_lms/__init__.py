"""A small LTI 1.3 platform (LMS) for demonstrations and tests. Not for production: it asks nobody for a password."""

__version__ = "1.0.0"
