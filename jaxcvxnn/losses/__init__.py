"""Losses: values, gradients, proxes, conjugates, and bounds on them."""
