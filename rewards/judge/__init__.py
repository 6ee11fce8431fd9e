"""The generative reward model: what a judge is asked, how it is reached and how its reply is read. The door is
`client.GenRMClient`.
"""
