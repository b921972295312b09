"""Results as a person reads them (tables) and as programs do (one JSON document), by what made them."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
"""What becomes JSON."""
