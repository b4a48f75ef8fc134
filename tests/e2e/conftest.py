"""Shared by all end-to-end tests; see docs/developers/e2e.md."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles/test_lms/files/app"))
