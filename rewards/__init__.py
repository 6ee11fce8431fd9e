"""Pure graders, the sandbox that runs untrusted code, and the combination of their verdicts into rewards.
No torch.
"""
