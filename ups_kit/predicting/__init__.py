"""Forecasts of a trained model: from given states to fields at any points, and from files to files."""
