"""The learner: pure losses, batches, optimizer, and the stages' training loops' common parts. The loss knows no domain."""
