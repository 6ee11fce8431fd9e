"""The audit of the rewards: exploits that must not be paid, honest answers that must be, policies that know nothing.

`cases` says what a case is; the corpus stands in the data modules that `corpus` lists, `workbench` takes a case through
the production graders, and `pipeline audit-rewards` prints what came out.
"""
