"""The patch effect: put a concept's activation into reference clips, run the rest of the model, and test the change."""
