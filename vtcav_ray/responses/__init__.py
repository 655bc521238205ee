"""Responses: run the rest of the model with a pool clip's activation in the place of the reference clips' own."""
