"""A trained model on other points than its data's own: grids, meshes and clouds of the same states."""
