"""The case studies of docs/cases: one command each, on clips that you supply."""
