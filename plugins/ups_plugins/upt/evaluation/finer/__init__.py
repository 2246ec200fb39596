"""Zero-shot super-resolution: a model that is given coarse frames, decoded at the finer points of the same files."""
