"""The learner: pure losses, batches, optimizer, the policy's step and the RL loop. The loss knows no domain."""
