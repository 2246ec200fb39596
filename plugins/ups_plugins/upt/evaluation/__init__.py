"""The stage `evaluate`: what a trained model is worth, beside what costs nothing to reach."""
