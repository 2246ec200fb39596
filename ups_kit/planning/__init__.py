"""What a run would take, before it is started: parameters, arithmetic, memory, data, steps and time."""
