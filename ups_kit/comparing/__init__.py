"""Finished runs beside each other: what differs in their recipes, and what came of it. Needs no torch."""
