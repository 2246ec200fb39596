"""The causal transformer on typed tokens."""
