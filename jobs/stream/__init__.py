"""The micro-batch path: what a customer does now shows in the score within seconds, by the features of the batch."""
