"""Heat maps on clips: examples, boxes, drawing, the pointing game, and intervals over source videos."""
