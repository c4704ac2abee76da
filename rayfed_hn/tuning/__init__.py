"""The arithmetic of a search for good settings: what is tried, what is best, what mattered."""
