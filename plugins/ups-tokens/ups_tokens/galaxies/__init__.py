"""Made galaxies: what they are like, how they look, and the tokens that stand for that."""
