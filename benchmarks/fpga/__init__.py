"""The simulated accelerator on the layers of the TVM paper."""
