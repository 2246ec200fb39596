"""Data on points that are no grid, meshes and particles alike: checked, split, normalised, and read in batches."""
