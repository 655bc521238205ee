"""Check effects by intervention: shift an activation and run the rest of the model."""
