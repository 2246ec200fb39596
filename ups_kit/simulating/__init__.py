"""What simulators of all plugins share: keys, draws, and where they compute. Only `devices` imports torch."""
