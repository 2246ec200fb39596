"""Weakly compressible smoothed particle hydrodynamics: what makes trajectories of particles."""
