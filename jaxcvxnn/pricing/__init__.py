"""The price of the best new neuron, with proof."""
