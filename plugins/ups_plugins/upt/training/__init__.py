"""The stages that train: `codec` and `operator`."""
